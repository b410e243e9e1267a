// kube is etcd, the parts of the Kubernetes control plane and those of a node in one program, for tests.
//
// One program links in a fraction of the time and space of many, because they share nearly all packages. A node's
// parts are in node_linux.go: elsewhere the program is the control plane alone, and tests play the node by a process.
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // the parts' own metrics, as the released programs have them
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// parts runs each part to its end; all read their flags from os.Args.
var parts = map[string]func(){
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kube-apiserver":          func() { run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() { run(controllermanager.NewControllerManagerCommand()) },
	"kube-scheduler":          func() { run(scheduler.NewSchedulerCommand()) },
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

func main() {
	if len(os.Args) > 1 {
		if part, known := parts[os.Args[1]]; known {
			os.Args = os.Args[1:]
			part()
			return
		}
	}
	names := slices.Sorted(maps.Keys(parts))
	fmt.Fprintln(os.Stderr, "usage: kube "+strings.Join(names, "|")+" [FLAG...]")
	os.Exit(2)
}

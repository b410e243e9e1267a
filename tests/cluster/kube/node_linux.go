package main

import (
	"context"

	"github.com/coredns/coredns/coremain"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	// What the cluster's Corefile speaks of, and no other plugin.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func init() {
	parts["coredns"] = coremain.Run
	parts["kube-proxy"] = func() { run(proxy.NewProxyCommand()) }
	parts["kubelet"] = func() { run(kubelet.NewKubeletCommand(context.Background())) }
}

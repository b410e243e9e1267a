{{/* Names, labels and the parts that pods share. Selectors are name, instance and component, for ever. */}}

{{/* The beginning of every name; short enough for the longest ending. */}}
{{- define "everwarm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "everwarm" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-everwarm" (.Release.Name | trunc 31 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{/* The name of a component's objects; (list $ "gateway"). */}}
{{- define "everwarm.componentName" -}}
{{- printf "%s-%s" (include "everwarm.fullname" (index . 0)) (index . 1) -}}
{{- end }}

{{/* The name of an object that belongs to no namespace: another release of the same name may be in another one. */}}
{{- define "everwarm.clusterName" -}}
{{- printf "%s-%s" (include "everwarm.componentName" .) (index . 0).Release.Namespace -}}
{{- end }}

{{/* What selects a component's pods; (list $ "gateway"). */}}
{{- define "everwarm.selectorLabels" -}}
app.kubernetes.io/name: everwarm
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* What selects the speech-to-text pods, which the operator makes (everwarm_operator.naming). */}}
{{- define "everwarm.sttLabels" -}}
app.kubernetes.io/name: everwarm-stt
app.kubernetes.io/component: stt
{{- end }}

{{/* The labels of a pod template: nothing of the chart's version, so that an upgrade restarts only what it changes. */}}
{{- define "everwarm.podLabels" -}}
{{ include "everwarm.selectorLabels" . }}
app.kubernetes.io/part-of: everwarm
{{- end }}

{{/* The labels of an object; (list $ "gateway"). */}}
{{- define "everwarm.labels" -}}
{{- $root := index . 0 -}}
{{ include "everwarm.podLabels" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The reference of an image; (list $ .Values.gateway.image). */}}
{{- define "everwarm.image" -}}
{{- $image := index . 1 -}}
{{- $name := ternary (printf "%s/%s" $image.registry $image.repository) $image.repository (not (empty $image.registry)) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{/* The Secret with the token and the registry's passwords. */}}
{{- define "everwarm.platformSecret" -}}
{{- default (include "everwarm.componentName" (list . "platform")) .Values.platformSecret.existingSecret -}}
{{- end }}

{{/* Where a role finds the registry's URL, as valueFrom; (list $ "agent"). */}}
{{- define "everwarm.redisUrl" -}}
{{- $root := index . 0 -}}
secretKeyRef:
{{- if $root.Values.valkey.enabled }}
  name: {{ include "everwarm.platformSecret" $root }}
  key: redis-url-{{ index . 1 }}
{{- else }}
  name: {{ $root.Values.externalRedis.existingSecret }}
  key: {{ index $root.Values.externalRedis.keys (index . 1) }}
{{- end }}
{{- end }}

{{/* The namespaces served, as a JSON list; all of the cluster is the empty one. */}}
{{- define "everwarm.namespaces" -}}
{{- if .Values.operator.clusterWide -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.operator.namespaces | uniq | sortAlpha | toJson -}}
{{- end -}}
{{- end }}

{{/* The namespaces served, as the namespaceSelector of a NetworkPolicy's peer. */}}
{{- define "everwarm.namespaceSelector" -}}
{{- $namespaces := include "everwarm.namespaces" . | fromJsonArray -}}
{{- if $namespaces -}}
matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson $namespaces }}}
{{- else -}}
{}
{{- end -}}
{{- end }}

{{/* The agents beside the gateway, as peers of a NetworkPolicy. */}}
{{- define "everwarm.agentPeers" -}}
{{- if .Values.networkPolicy.agents -}}
{{ toYaml .Values.networkPolicy.agents }}
{{- else -}}
- namespaceSelector:
    {{- include "everwarm.namespaceSelector" . | nindent 4 }}
  podSelector:
    matchLabels:
      everwarm.dev/agent: "true"
{{- end -}}
{{- end }}

{{/* A component of this release, as a peer of a NetworkPolicy; (list $ "gateway"). */}}
{{- define "everwarm.componentPeer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ (index . 0).Release.Namespace }}
  podSelector:
    matchLabels:
      {{- include "everwarm.selectorLabels" . | nindent 6 }}
{{- end }}

{{/* What every pod's spec begins with; (list $ .Values.gateway). */}}
{{- define "everwarm.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $component.runAsUser }}
  runAsUser: {{ . | int64 }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with $component.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The securityContext of every container. */}}
{{- define "everwarm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Telemetry's variables, those first that others refer to; (list $ "gateway"). */}}
{{- define "everwarm.telemetryEnv" -}}
{{- $root := index . 0 -}}
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: POD_UID
  valueFrom:
    fieldRef: {fieldPath: metadata.uid}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef: {fieldPath: metadata.namespace}
- name: NODE_NAME
  valueFrom:
    fieldRef: {fieldPath: spec.nodeName}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.namespace.name=$(POD_NAMESPACE),k8s.node.name=$(NODE_NAME),k8s.deployment.name={{ include "everwarm.componentName" . }},k8s.container.name={{ index . 1 }}
{{- with $root.Values.telemetry.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* How Prometheus reads a component. */}}
{{- define "everwarm.scrape" -}}
podMetricsEndpoints:
  - port: http
    path: /metrics
    interval: {{ .Values.metrics.podMonitor.interval }}
{{- end }}

{{/* Each template begins with this: a value that is null or missing is its default, also under
`--reuse-values` from a chart that did not have it. */}}
{{- define "spu.init" -}}
{{- include "spu.fill" (list .Values (include "spu.defaults" . | fromJson)) -}}
{{- end -}}
{{- define "spu.fill" -}}
{{- $values := index . 0 -}}
{{- range $key, $default := index . 1 -}}
{{- $value := index $values $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := set $values $key $default -}}
{{- /* Within `resources` a null takes a limit away. */ -}}
{{- else if and (kindIs "map" $default) (ne $key "resources") -}}
{{- include "spu.fill" (list $value $default) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "spu.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "spu.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "spu.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "spu.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "spu.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "spu.selectorLabels" -}}
app.kubernetes.io/name: {{ include "spu.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels of an object: (list $ labels). What the selectors need is the chart's own; any other
may be given. */}}
{{- define "spu.labels" -}}
{{- $ := index . 0 -}}
{{- $own := dict "app.kubernetes.io/component" "device-plugin" "app.kubernetes.io/version" $.Chart.AppVersion "app.kubernetes.io/managed-by" $.Release.Service "helm.sh/chart" (printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_") -}}
{{- $selector := include "spu.selectorLabels" $ | fromYaml -}}
{{- if eq (default "" (index (index . 1) "app.kubernetes.io/component")) "telemetry" -}}
{{- $selector = index . 1 -}}
{{- end -}}
{{- toYaml (mergeOverwrite $own (deepCopy $.Values.commonLabels) (deepCopy (index . 1)) $selector) -}}
{{- end -}}

{{/* The metadata of an object: (list $ name labels annotations). */}}
{{- define "spu.metadata" -}}
{{- $ := index . 0 -}}
name: {{ index . 1 }}
labels:
  {{- include "spu.labels" (list $ (index . 2)) | nindent 2 }}
{{- with mergeOverwrite (deepCopy $.Values.commonAnnotations) (index . 3) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "spu.image" -}}
{{- $registry := default .Values.global.imageRegistry .Values.image.registry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end -}}
{{- .Values.image.repository -}}
{{- if .Values.image.digest -}}
@{{ .Values.image.digest }}
{{- else -}}
:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* "true" or nothing, as `include` can only say text. */}}
{{- define "spu.usesCdi" -}}
{{- if or .Values.cdi.mount (has "cdi-annotations" .Values.deviceListStrategy) (has "cdi-cri" .Values.deviceListStrategy) (include "spu.configSays" (list . "cdi")) (include "spu.dra" .) -}}true{{- end -}}
{{- end -}}

{{/* Whether DRA is on for some node. */}}
{{- define "spu.dra" -}}
{{- if kindIs "bool" .Values.dra.enabled -}}
{{- if .Values.dra.enabled -}}true{{- end -}}
{{- else if or (eq (default "" .Values.deviceApi) "dra") (include "spu.configSays" (list . "dra")) -}}true{{- end -}}
{{- end -}}

{{/* Whether the inline file, at its top or for some nodes, has a cdi strategy ("cdi") or the
device API "dra", sends labels to "nfd" or "api", chooses sections by label ("by-label"), or turns on "injectSola",
"events", "condition" or "cordonAnnotation". */}}
{{- define "spu.configSays" -}}
{{- $inline := (index . 0).Values.config.inline -}}
{{- $what := index . 1 -}}
{{- range concat (list $inline) (default list $inline.nodes) -}}
{{- if eq $what "cdi" -}}
{{- $strategies := kindIs "string" .deviceListStrategy | ternary (list .deviceListStrategy) .deviceListStrategy -}}
{{- range default list $strategies }}{{ if hasPrefix "cdi-" . }}true{{ end }}{{ end -}}
{{- else if has $what (list "injectSola" "events" "condition" "cordonAnnotation") -}}
{{- if index . $what }}true{{ end -}}
{{- else if eq $what "dra" -}}
{{- range concat (list .) (default list .resources) }}{{ if eq (default "" .deviceApi) "dra" }}true{{ end }}{{ end -}}
{{- else if eq $what "by-label" -}}
{{- if (default dict .match).labels }}true{{ end -}}
{{- else if eq (default dict .labels).sink $what -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "spu.hasConfig" -}}
{{- if or .Values.config.inline .Values.config.existingConfigMap -}}true{{- end -}}
{{- end -}}

{{- define "spu.configMap" -}}
{{- default (include "spu.fullname" .) .Values.config.existingConfigMap -}}
{{- end -}}

{{/* What of the API server is used: each is a rule of its own. */}}
{{- define "spu.watchesNodes" -}}
{{- if or .Values.config.readsNodeLabels .Values.cordonAnnotation (include "spu.configSays" (list . "by-label")) (include "spu.configSays" (list . "cordonAnnotation")) -}}true{{- end -}}
{{- end -}}
{{- define "spu.patchesLabels" -}}
{{- if eq .Values.labels.sink "api" -}}true{{- else if and (eq .Values.labels.sink "none") (include "spu.configSays" (list . "api")) -}}true{{- end -}}
{{- end -}}
{{- define "spu.events" -}}
{{- if or .Values.events (include "spu.configSays" (list . "events")) -}}true{{- end -}}
{{- end -}}
{{- define "spu.condition" -}}
{{- if or .Values.condition (include "spu.configSays" (list . "condition")) -}}true{{- end -}}
{{- end -}}
{{- define "spu.usesApi" -}}
{{- if or (include "spu.watchesNodes" .) (include "spu.patchesLabels" .) (include "spu.events" .) (include "spu.condition" .) (include "spu.dra" .) -}}true{{- end -}}
{{- end -}}
{{- define "spu.writesNfd" -}}
{{- if eq .Values.labels.sink "nfd" -}}true{{- else if and (eq .Values.labels.sink "none") (include "spu.configSays" (list . "nfd")) -}}true{{- end -}}
{{- end -}}

{{- define "spu.createsServiceAccount" -}}
{{- if kindIs "bool" .Values.serviceAccount.create -}}
{{- if .Values.serviceAccount.create -}}true{{- end -}}
{{- else -}}
{{- include "spu.usesApi" . -}}
{{- end -}}
{{- end -}}
{{- define "spu.serviceAccount" -}}
{{- if include "spu.createsServiceAccount" . -}}
{{- default (include "spu.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "spu.hostRoot" -}}
{{- if .Values.hostRoot.mode -}}
{{- .Values.hostRoot.mode -}}
{{- else if .Values.simulate -}}
none
{{- else if eq .Values.security.profile "privileged" -}}
all
{{- else if or .Values.injectSola (include "spu.configSays" (list . "injectSola")) -}}
parts
{{- else -}}
none
{{- end -}}
{{- end -}}

{{- define "spu.rollingUpdate" -}}
{{- $given := .Values.updateStrategy.rollingUpdate -}}
{{- if $given -}}
{{- /* Kubernetes takes only one of both that is not 0, and counts maxUnavailable as 1. */ -}}
{{ toYaml (hasKey $given "maxSurge" | ternary (mergeOverwrite (dict "maxUnavailable" 0) $given) $given) }}
{{- else if and (semverCompare ">=1.22.0-0" .Capabilities.KubeVersion.Version) (not .Values.hostNetwork) -}}
maxSurge: 1
maxUnavailable: 0
{{- else -}}
maxUnavailable: 1
{{- end -}}
{{- end -}}

{{/* Root, because the kubelet's directory and socket are root's, and nothing else of root. */}}
{{- define "spu.containerSecurityContext" -}}
{{- $profile := dict -}}
{{- if eq .Values.security.profile "privileged" -}}
{{- $profile = dict "privileged" true "runAsUser" 0 -}}
{{- else if eq .Values.security.profile "default" -}}
{{- $capabilities := dict "drop" (list "ALL") -}}
{{- if .Values.hostRoot.chroot -}}
{{- $_ := set $capabilities "add" (list "SYS_CHROOT") -}}
{{- end -}}
{{- $profile = dict "allowPrivilegeEscalation" false "privileged" false "readOnlyRootFilesystem" true "runAsUser" 0 "runAsGroup" 0 "capabilities" $capabilities -}}
{{- end -}}
{{- with .Values.security.seLinuxType -}}
{{- $_ := set $profile "seLinuxOptions" (dict "type" .) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $profile .Values.security.containerSecurityContext) -}}
{{- end -}}
{{- define "spu.podSecurityContext" -}}
{{- $profile := dict -}}
{{- if and (eq .Values.security.profile "default") (semverCompare ">=1.19.0-0" .Capabilities.KubeVersion.Version) -}}
{{- $profile = dict "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $profile .Values.security.podSecurityContext) -}}
{{- end -}}

{{/* How the plugin gets the readings of mx-smi: "monitoring", "privileged", or "none" for by itself,
if at all. */}}
{{- define "spu.telemetryMode" -}}
{{- $own := or (eq .Values.security.profile "privileged") .Values.hostRoot.mode .Values.mxSmi.command (default dict .Values.config.inline.telemetry).source -}}
{{- if .Values.simulate -}}
none
{{- else -}}
{{- default ($own | empty | ternary "monitoring" "none") .Values.telemetry.mode -}}
{{- end -}}
{{- end -}}
{{- define "spu.monitoringResource" -}}
{{- default "moffett.ai/spu-monitoring" (default dict .Values.config.inline.monitoring).resourceName -}}
{{- end -}}
{{/* How many units of it there are; nothing for none. */}}
{{- define "spu.monitoringUnits" -}}
{{- $inline := (default dict .Values.config.inline.monitoring).units -}}
{{- if not (kindIs "invalid" .Values.monitoring.units) -}}
{{- if .Values.monitoring.units }}{{ .Values.monitoring.units }}{{ end -}}
{{- else if not (kindIs "invalid" $inline) -}}
{{- if $inline }}{{ $inline }}{{ end -}}
{{- else if eq (include "spu.telemetryMode" .) "monitoring" -}}
1
{{- end -}}
{{- end -}}
{{/* Other labels than the plugin's pods have: neither selects the other's. */}}
{{- define "spu.telemetryLabels" -}}
app.kubernetes.io/name: {{ include "spu.name" . | trunc 53 | trimSuffix "-" }}-telemetry
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: telemetry
{{- end -}}
{{- define "spu.telemetryMounts" -}}
- name: telemetry
  mountPath: /run/moffett-device-plugin/telemetry
  hostPath: {path: {{ .Values.telemetry.socketDir }}, type: DirectoryOrCreate}
{{- range $number, $path := .Values.telemetry.hostParts }}
- name: host-{{ $number }}
  mountPath: /host{{ $path }}
  readOnly: true
  hostPath: {path: {{ trimSuffix "/" $.Values.hostRoot.path }}{{ $path }}, type: Directory}
{{- end }}
{{- if include "spu.hasConfig" . }}
- name: config
  mountPath: /etc/moffett-device-plugin
  readOnly: true
  configMap: {name: {{ include "spu.configMap" . }}}
{{- end }}
{{- end -}}

{{/* Settings that have a value, as variables. */}}
{{- define "spu.settings" -}}
{{- $rules := list -}}
{{- range $rule, $limit := .Values.health.rules -}}
{{- /* YAML makes a boolean of an unquoted `off`. */ -}}
{{- if kindIs "bool" $limit -}}
{{- $limit = $limit | ternary "on" "off" -}}
{{- end -}}
{{- $rules = append $rules (printf "%s=%v" $rule $limit) -}}
{{- end -}}
{{- $metrics := "" -}}
{{- if .Values.metrics.enabled -}}
{{- $host := contains ":" .Values.metrics.host | ternary (printf "[%s]" .Values.metrics.host) .Values.metrics.host -}}
{{- $metrics = printf "%s:%d" $host (int .Values.metrics.port) -}}
{{- end -}}
{{- $settings := list
  (list "SPU_CONFIG" (include "spu.hasConfig" . | empty | ternary "" (printf "/etc/moffett-device-plugin/%s" .Values.config.key)))
  (list "SPU_HOST_ROOT" (ne (include "spu.hostRoot" .) "none" | ternary "/host" ""))
  (list "SPU_SIMULATE" .Values.simulate)
  (list "SPU_RESOURCE_NAME" .Values.resourceName)
  (list "SPU_RESOURCE_NAME_FROM" .Values.resourceNameFrom)
  (list "SPU_GRANULARITY" .Values.granularity)
  (list "SPU_PLACEMENT" .Values.placement)
  (list "SPU_SHARING_REPLICAS" .Values.sharing.replicas)
  (list "SPU_SHARING_RENAME" .Values.sharing.rename)
  (list "SPU_SHARING_MAX_PER_POD" .Values.sharing.maxPerPod)
  (list "SPU_SHARING_FAIL_REQUESTS_GREATER_THAN_ONE" .Values.sharing.failRequestsGreaterThanOne)
  (list "SPU_DEVICE_API" .Values.deviceApi)
  (list "SPU_DRA_EVICT" (join "," .Values.dra.evict))
  (list "SPU_DEVICE_LIST_STRATEGY" (join "," .Values.deviceListStrategy))
  (list "SPU_CDI_VERSION" .Values.cdi.version)
  (list "SPU_INJECT_SOLA" .Values.injectSola)
  (list "SPU_PRE_START_CHECK" .Values.preStartCheck)
  (list "SPU_CONTROL_DEVICE" (join "," .Values.controlDevices))
  (list "SPU_HEALTH" (join "," $rules))
  (list "SPU_CORDON" (join "," .Values.cordon))
  (list "SPU_RECOVERY_SECONDS" .Values.health.recoverySeconds)
  (list "SPU_FLAPPING_SECONDS" (join "," .Values.health.flappingSeconds))
  (list "SPU_MX_SMI" .Values.mxSmi.command)
  (list "SPU_MX_SMI_INTERVAL" .Values.mxSmi.intervalSeconds)
  (list "SPU_MX_SMI_TIMEOUT" .Values.mxSmi.timeoutSeconds)
  (list "SPU_TELEMETRY_SOURCE" (eq (include "spu.telemetryMode" .) "none" | ternary "" "socket"))
  (list "SPU_MONITORING_UNITS" (include "spu.monitoringUnits" .))
  (list "SPU_LOG_FORMAT" .Values.log.format)
  (list "SPU_LOG_LEVEL" .Values.log.level)
  (list "SPU_METRICS_ADDRESS" $metrics)
  (list "SPU_LABELS" (eq .Values.labels.sink "none" | ternary "" .Values.labels.sink))
  (list "SPU_EVENTS" (.Values.events | ternary true ""))
  (list "SPU_CONDITION" (.Values.condition | ternary true ""))
  (list "SPU_CORDON_ANNOTATION" (.Values.cordonAnnotation | ternary true ""))
-}}
{{- range $settings -}}
{{- $value := index . 1 -}}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- name: {{ index . 0 }}
  value: {{ toString $value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Volumes and mounts in one list, so that one cannot be without the other. */}}
{{- define "spu.mounts" -}}
{{- $root := include "spu.hostRoot" . -}}
- name: device-plugins
  mountPath: /var/lib/kubelet/device-plugins
  hostPath: {path: {{ .Values.kubelet.devicePluginDir }}}
{{- if and .Values.podResources.enabled (semverCompare ">=1.15.0-0" .Capabilities.KubeVersion.Version) }}
- name: pod-resources
  mountPath: /var/lib/kubelet/pod-resources
  readOnly: true
  hostPath: {path: {{ .Values.kubelet.rootDir }}/pod-resources, type: Directory}
{{- end }}
{{- if ne (include "spu.telemetryMode" .) "none" }}
- name: telemetry
  mountPath: /run/moffett-device-plugin/telemetry
  readOnly: true
  hostPath: {path: {{ .Values.telemetry.socketDir }}, type: DirectoryOrCreate}
{{- end }}
{{- if include "spu.dra" . }}
- name: plugins-registry
  mountPath: /var/lib/kubelet/plugins_registry
  hostPath: {path: {{ .Values.kubelet.rootDir }}/plugins_registry, type: Directory}
{{- end }}
{{- if eq $root "all" }}
- name: host
  mountPath: /host
  readOnly: true
  {{- if .Values.hostRoot.mountPropagation }}
  mountPropagation: {{ .Values.hostRoot.mountPropagation }}
  {{- else if and (eq .Values.security.profile "default") (semverCompare ">=1.33.0-0" .Capabilities.KubeVersion.Version) }}
  recursiveReadOnly: IfPossible
  {{- end }}
  hostPath: {path: {{ .Values.hostRoot.path }}, type: Directory}
{{- else if eq $root "parts" }}
{{- range $number, $_ := .Values.hostRoot.parts }}
- name: host-{{ $number }}
  mountPath: /host{{ . }}
  readOnly: true
  hostPath: {path: {{ . }}, type: Directory}
{{- end }}
{{- else if and .Values.sola.mount (not .Values.simulate) }}
- name: usr-local
  mountPath: /usr/local
  readOnly: true
  hostPath: {path: /usr/local, type: DirectoryOrCreate}
{{- end }}
{{- if not (or .Values.simulate (default dict .Values.config.inline.simulate).cards) }}
- name: state
  mountPath: /var/lib/moffett-device-plugin
  hostPath: {path: {{ .Values.stateDir }}, type: DirectoryOrCreate}
{{- end }}
{{- if include "spu.usesCdi" . }}
- name: cdi
  mountPath: /var/run/cdi
  hostPath: {path: {{ .Values.cdi.dir }}, type: DirectoryOrCreate}
{{- end }}
{{- if include "spu.writesNfd" . }}
- name: nfd
  mountPath: /etc/kubernetes/node-feature-discovery/features.d
  hostPath: {path: {{ .Values.labels.nfdDir }}, type: DirectoryOrCreate}
{{- end }}
{{- if include "spu.hasConfig" . }}
- name: config
  mountPath: /etc/moffett-device-plugin
  readOnly: true
  configMap: {name: {{ include "spu.configMap" . }}}
{{- end }}
{{- if or .Values.simulate (default dict .Values.config.inline.simulate).cards }}
- name: simulation
  mountPath: /run/moffett-device-plugin
  emptyDir: {}
{{- end }}
{{- end -}}

{{/* The affinity of the values; with nfd.affinity each of its required terms holds on nodes
with an SPU only. */}}
{{- define "spu.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- if .Values.nfd.affinity -}}
{{- $node := default dict $affinity.nodeAffinity -}}
{{- $required := default dict $node.requiredDuringSchedulingIgnoredDuringExecution -}}
{{- $terms := list -}}
{{- range $given := default (list dict) $required.nodeSelectorTerms -}}
{{- range $label := list "feature.node.kubernetes.io/pci-1200_1f36.present" "feature.node.kubernetes.io/pci-1f36.present" "moffett.ai/spu.present" -}}
{{- $has := dict "key" $label "operator" "In" "values" (list "true") -}}
{{- $expressions := concat (default list $given.matchExpressions) (list $has) -}}
{{- $terms = append $terms (merge (dict "matchExpressions" $expressions) $given) -}}
{{- end -}}
{{- end -}}
{{- $node = merge (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms)) $node -}}
{{- $affinity = merge (dict "nodeAffinity" $node) $affinity -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}

{{- define "spu.probe" -}}
{{- $ := index . 0 -}}
{{- $http := dict "path" (index . 1) "port" "metrics" -}}
{{- if and $.Values.metrics.host $.Values.hostNetwork -}}
{{- $_ := set $http "host" $.Values.metrics.host -}}
{{- end -}}
{{- toYaml (mergeOverwrite (dict "httpGet" $http) (index . 2) (index . 3)) -}}
{{- end -}}

{{/* The scrape of a ServiceMonitor or PodMonitor. */}}
{{- define "spu.endpoint" -}}
{{- $monitor := index . 1 -}}
port: metrics
# namespace, pod and container of moffett_spu_allocation_info are those that hold a device.
honorLabels: true
{{- with $monitor.interval }}
interval: {{ . }}
{{- end }}
{{- with $monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
relabelings:
- targetLabel: job
  replacement: moffett-device-plugin
# One target a node, and the same one after the pod was replaced.
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: instance
{{- with $monitor.relabelings }}
{{ toYaml . }}
{{- end }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Stops what cannot work, with the remedy. */}}
{{- define "spu.check" -}}
{{- $chartValues := dict "hostRoot" "hostRoot.mode and hostRoot.path" "kubeletDir" "kubelet.devicePluginDir" "podResourcesSocket" "kubelet.rootDir or podResources.enabled" "pluginsRegistryDir" "kubelet.rootDir" -}}
{{- range $section := concat (list .Values.config.inline) (default list .Values.config.inline.nodes) -}}
{{- range $key, $value := $chartValues -}}
{{- if hasKey $section $key -}}
{{- fail (printf "config.inline.%s is a path in the container, where the chart mounts the host's: use %s" $key $value) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (default dict $section.cdi) "dir" -}}
{{- fail "config.inline.cdi.dir is a path in the container, where the chart mounts the host's: use cdi.dir" -}}
{{- end -}}
{{- if hasKey (default dict $section.labels) "nfdFile" -}}
{{- fail "config.inline.labels.nfdFile is a path in the container, where the chart mounts the host's: use labels.nfdDir" -}}
{{- end -}}
{{- end -}}
{{- if and (not (kindIs "invalid" .Values.sharing.failRequestsGreaterThanOne)) (le (int (default 1 .Values.sharing.replicas)) 1) -}}
{{- fail "sharing.failRequestsGreaterThanOne has no effect without sharing.replicas of 2 or more" -}}
{{- end -}}
{{- if include "spu.dra" . -}}
{{- if semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail "DRA (deviceApi, dra.enabled) needs Kubernetes 1.34 or later: use deviceApi device-plugin" -}}
{{- end -}}
{{- if not .Values.podResources.enabled -}}
{{- fail "DRA (deviceApi, dra.enabled) needs podResources.enabled: without it a device could be given to two pods" -}}
{{- end -}}
{{- else if eq (default "" .Values.deviceApi) "dra" -}}
{{- fail "deviceApi dra and dra.enabled false: leave dra.enabled out" -}}
{{- end -}}
{{- if and .Values.config.inline .Values.config.existingConfigMap -}}
{{- fail "config.inline and config.existingConfigMap are both set: use one of them" -}}
{{- end -}}
{{- if and .Values.metrics.host (not .Values.hostNetwork) -}}
{{- fail "metrics.host is the address of a node: it needs hostNetwork, else leave it empty" -}}
{{- end -}}
{{- if and .Values.hostNetwork .Values.metrics.enabled .Values.updateStrategy.rollingUpdate.maxSurge -}}
{{- fail "updateStrategy.rollingUpdate.maxSurge and hostNetwork: two pods cannot have one port of a node, turn metrics.enabled off" -}}
{{- end -}}
{{- if not .Values.metrics.enabled -}}
{{- range $name := list "service" "serviceMonitor" "podMonitor" -}}
{{- if (index $.Values.metrics $name).enabled -}}
{{- fail (printf "metrics.%s.enabled needs metrics.enabled" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would scrape everything twice: use one of them" -}}
{{- end -}}
{{- if and (eq (include "spu.telemetryMode" .) "monitoring") (not (include "spu.monitoringUnits" .)) -}}
{{- fail "telemetry.mode monitoring needs a unit of the monitoring resource: leave monitoring.units out, or use 1 or more" -}}
{{- end -}}
{{- if and .Values.injectSola (eq (include "spu.hostRoot" .) "none") (not .Values.simulate) -}}
{{- fail "injectSola needs hostRoot.mode parts or all" -}}
{{- end -}}
{{- if and (include "spu.usesApi" .) (not (include "spu.createsServiceAccount" .)) (not .Values.serviceAccount.name) -}}
{{- fail "labels, events, condition, DRA or sections by node label need a service account: leave serviceAccount.create out, or name yours in serviceAccount.name" -}}
{{- end -}}
{{- end -}}

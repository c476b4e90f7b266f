{{- define "quorate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Pods are called NAME-0 and so on; with their own suffixes all names stay below 63 characters. */}}
{{- define "quorate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "quorate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "quorate.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/*
The headless service. A discovery.dns that names a service of this namespace means this one: then it has
that name.
*/}}
{{- define "quorate.headless" -}}
{{- $config := .Values.controlPlane.config | default dict -}}
{{- $raft := dig "controlPlane" "raft" dict $config -}}
{{- $given := regexFind (printf "[^.]+[.]%s[.]svc" .Release.Namespace) (dig "discovery" "dns" "" $raft) -}}
{{- $name := $given | splitList "." | first | default (printf "%s-headless" (include "quorate.fullname" .)) -}}
{{- if eq $name (include "quorate.fullname" .) -}}
{{- fail (printf "controlPlane.config.controlPlane.raft.discovery.dns: %s is the clients' service: the nodes find each other behind a headless one; leave discovery out, or name another" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "quorate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "quorate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quorate.labels" -}}
{{ include "quorate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The whole configuration as a dictionary: what the user gave, and what was left out. */}}
{{- define "quorate.config" -}}
{{- $config := deepCopy (.Values.controlPlane.config | default dict) -}}
{{- $given := $config.controlPlane | default dict -}}
{{- $raft := $given.raft | default dict -}}
{{- $raftDefaults := dict "nodeId" "${POD_NAME}" "bindAddress" ":7000" -}}
{{- if not (or $raft.advertiseAddress $raft.peers) -}}
{{- $port := splitList ":" ($raft.bindAddress | default ":7000") | last -}}
{{- $_ := set $raftDefaults "advertiseAddress" (printf "${POD_IP}:%s" $port) -}}
{{- end -}}
{{- if not (or $raft.peers (hasKey $raft "discovery")) -}}
{{- /* The dot at its end: this is the whole name, no search domain is asked first. */ -}}
{{- $dns := printf "%s.%s.svc.%s." (include "quorate.headless" .) .Release.Namespace .Values.clusterDomain -}}
{{- $_ := set $raftDefaults "discovery" (dict "dns" $dns) -}}
{{- end -}}
{{- if not (or $raft.peers $raft.founders $raft.bootstrapExpect) -}}
{{- $_ := set $raftDefaults "bootstrapExpect" "${QUORATE_BOOTSTRAP_EXPECT}" -}}
{{- end -}}
{{- $defaults := dict "address" ":8080" "metricsAddress" ":8081" "storePath" "/data" "raft" $raftDefaults -}}
{{- $_ := set $config "mode" ($config.mode | default "controlplane") -}}
{{- $_ := set $config "controlPlane" (merge $given $defaults) -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "quorate.port" -}}
{{- splitList ":" . | last -}}
{{- end -}}

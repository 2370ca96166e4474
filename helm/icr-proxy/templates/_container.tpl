{{/* Pod Security "restricted", and a root file system that cannot be written. */}}
{{- define "icr-proxy.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsGroup: 65532
runAsNonRoot: true
runAsUser: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "icr-proxy.container" -}}
name: icr-proxy
image: {{ include "icr-proxy.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, --config, /etc/icr-proxy/config/icr-proxy.yaml]
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "icr-proxy.securityContext" . | nindent 2 }}
volumeMounts:
  {{- include "icr-proxy.volumeMounts" . | nindent 2 }}
  {{- if .Values.audit.enabled }}
  - {name: icr-proxy-audit, mountPath: /var/lib/icr-proxy}
  {{- end }}
  {{- if eq .Values.mode "sidecar" }}
  - {name: icr-proxy-no-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
{{- end }}

{{/* Directories, never single files (subPath): those would not be seen to change. */}}
{{- define "icr-proxy.volumeMounts" -}}
- {name: icr-proxy-config, mountPath: /etc/icr-proxy/config, readOnly: true}
{{- if or .Values.privateKey.secretName .Values.privateKey.volume }}
- {name: icr-proxy-keys, mountPath: /etc/icr-proxy/keys, readOnly: true}
{{- end }}
{{- range $name, $_ := .Values.secrets }}
- {name: icr-proxy-secret-{{ $name }}, mountPath: /etc/icr-proxy/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Only the proxy's container mounts these, so what it may read, nobody else in the pod can. */}}
{{- define "icr-proxy.volumes" -}}
{{- $mode := ternary 0440 0444 (eq .Values.mode "gateway") -}}
- name: icr-proxy-config
  configMap: {name: {{ include "icr-proxy.fullname" . }}}
{{- if .Values.privateKey.secretName }}
- name: icr-proxy-keys
  secret: {secretName: {{ .Values.privateKey.secretName }}, defaultMode: {{ $mode }}}
{{- else if .Values.privateKey.volume }}
- name: icr-proxy-keys
  {{- toYaml .Values.privateKey.volume | nindent 2 }}
{{- end }}
{{- range $name, $secret := .Values.secrets }}
- name: icr-proxy-secret-{{ $name }}
  secret: {secretName: {{ $secret }}, defaultMode: {{ $mode }}}
{{- end }}
{{- if eq .Values.mode "sidecar" }}
# Kubernetes mounts the token of the pod's service account into every container that has no mount of
# its own there. The proxy needs none, so it gets this empty folder; the others keep theirs.
- name: icr-proxy-no-token
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
{{- end }}

{{/* A probe by HTTP where the kubelet can reach the admin port; by the program itself where only
     the pod can. */}}
{{- define "icr-proxy.probe" -}}
{{- $bind := include "icr-proxy.adminBind" .root -}}
{{- if regexMatch "^(0\\.0\\.0\\.0|\\[::\\]|\\*):" $bind -}}
httpGet: {path: {{ .path }}, port: admin}
timeoutSeconds: 3
{{- else -}}
exec: {command: {{ prepend .command "icr-proxy" | toJson }}}
timeoutSeconds: 10
{{- end -}}
{{- end }}

{{- define "icr-proxy.startupProbe" -}}
{{- $command := list "health" "--ready" "--admin" (include "icr-proxy.adminBind" .) -}}
{{ include "icr-proxy.probe" (dict "root" . "path" "/startupz" "command" $command) }}
periodSeconds: 1
failureThreshold: 60
{{- end }}

{{- define "icr-proxy.livenessProbe" -}}
{{- $command := list "health" "--admin" (include "icr-proxy.adminBind" .) -}}
{{ include "icr-proxy.probe" (dict "root" . "path" "/healthz" "command" $command) }}
periodSeconds: 20
failureThreshold: 3
{{- end }}

{{- define "icr-proxy.readinessProbe" -}}
{{- $command := list "health" "--ready" "--admin" (include "icr-proxy.adminBind" .) -}}
{{ include "icr-proxy.probe" (dict "root" . "path" "/readyz" "command" $command) }}
periodSeconds: 5
failureThreshold: 2
{{- end }}

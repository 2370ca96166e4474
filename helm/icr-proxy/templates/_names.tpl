{{/* The version of the program that this chart was made for; the same as in Chart.yaml, which a
     template that runs in another chart cannot see. */}}
{{- define "icr-proxy.version" -}}0.1.0{{- end }}

{{- define "icr-proxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" -}}
{{- else if contains "icr-proxy" .Release.Name -}}
{{- .Release.Name | trunc 57 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-icr-proxy" .Release.Name | trunc 57 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "icr-proxy.selector" -}}
app.kubernetes.io/name: icr-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end }}

{{/* Of the pod of `helm test`, which no service leads to. */}}
{{- define "icr-proxy.testLabels" -}}
app.kubernetes.io/name: icr-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
icr-proxy/test: "true"
{{- end }}

{{- define "icr-proxy.labels" -}}
{{ include "icr-proxy.selector" . }}
app.kubernetes.io/version: {{ include "icr-proxy.version" . | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: icr-proxy-{{ include "icr-proxy.version" . }}
{{- end }}

{{- define "icr-proxy.metadata" -}}
name: {{ include "icr-proxy.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "icr-proxy.labels" . | nindent 2 }}
{{- end }}

{{- define "icr-proxy.serviceAccountName" -}}
{{- $own := ternary (include "icr-proxy.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end }}

{{- define "icr-proxy.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default (include "icr-proxy.version" .) .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{- define "icr-proxy.workload" -}}{{ ternary "StatefulSet" "Deployment" .Values.audit.enabled }}{{- end }}

{{/* Webhook configurations belong to the whole cluster. */}}
{{- define "icr-proxy.webhook" -}}{{ .Release.Namespace }}-{{ include "icr-proxy.fullname" . }}{{- end }}

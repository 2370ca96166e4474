{{/* What all pods of this chart have in common. */}}
{{- define "icr-proxy.podContext" -}}
securityContext:
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  runAsGroup: 65532
  runAsNonRoot: true
  runAsUser: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "icr-proxy.podMetadata" -}}
labels:
  {{- include "icr-proxy.selector" . | nindent 2 }}
  {{- with .Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "icr-proxy.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range .Values.topologySpreadConstraints }}
  - {{ toYaml . | indent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- include "icr-proxy.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Resources as the injector's flags take them: cpu=50m,memory=96Mi. */}}
{{- define "icr-proxy.amounts" -}}
{{- $all := list -}}
{{- range $name, $amount := . -}}{{- $all = append $all (printf "%s=%v" $name $amount) -}}{{- end -}}
{{- join "," $all -}}
{{- end }}

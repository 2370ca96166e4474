{{/* The pod of the gateway, be it of a Deployment or of a StatefulSet. */}}
{{- define "icr-proxy.pod" -}}
metadata:
  labels:
    {{- include "icr-proxy.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    icr-proxy/restart: {{ include "icr-proxy.restartChecksum" . }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "icr-proxy.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "icr-proxy.gracePeriod" . }}
  securityContext:
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    runAsGroup: 65532
    runAsNonRoot: true
    runAsUser: 65532
    seccompProfile: {type: RuntimeDefault}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - {{ include "icr-proxy.container" . | indent 6 | trim }}
      ports:
        - {name: http, containerPort: {{ include "icr-proxy.dataPort" . }}, protocol: TCP}
        - {name: admin, containerPort: {{ include "icr-proxy.adminPort" . }}, protocol: TCP}
      startupProbe:
        {{- include "icr-proxy.startupProbe" . | nindent 8 }}
      livenessProbe:
        {{- include "icr-proxy.livenessProbe" . | nindent 8 }}
      readinessProbe:
        {{- include "icr-proxy.readinessProbe" . | nindent 8 }}
  volumes:
    {{- include "icr-proxy.volumes" . | nindent 4 }}
  {{- include "icr-proxy.placement" . | trim | nindent 2 }}
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

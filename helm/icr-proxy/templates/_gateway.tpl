{{/* The pod of the gateway, be it of a Deployment or of a StatefulSet. */}}
{{- define "icr-proxy.pod" -}}
metadata:
  {{- include "icr-proxy.podMetadata" . | nindent 2 }}
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
  {{- include "icr-proxy.podContext" . | nindent 2 }}
  containers:
    - {{ include "icr-proxy.container" . | indent 6 | trim }}
      ports:
        - {name: http, containerPort: {{ include "icr-proxy.dataPort" . }}, protocol: TCP}
        {{- if include "icr-proxy.adminReachable" . }}
        - {name: admin, containerPort: {{ include "icr-proxy.adminPort" . }}, protocol: TCP}
        {{- end }}
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

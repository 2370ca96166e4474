{{/* For other charts, which depend on this one with `mode: sidecar` (docs/kubernetes.md):

       icr-proxy.sidecar         the keys initContainers and volumes of a pod that has none itself
       icr-proxy.initContainer   one item for initContainers
       icr-proxy.sidecarVolumes  items for volumes
       icr-proxy.sidecarChecksum changes with what a running proxy cannot take up, for an annotation

     They run in the other chart, see its values, and find those of this chart among them. */}}
{{- define "icr-proxy.within" -}}
{{- $values := get .Values "icr-proxy" -}}
{{- if not $values -}}
{{- fail "icr-proxy: there are no values of this name; is the chart icr-proxy among the dependencies?" -}}
{{- end -}}
{{- if ne $values.mode "sidecar" -}}
{{- fail "icr-proxy.mode: must be sidecar for the sidecar's templates" -}}
{{- end -}}
{{- dict "Values" $values "Release" .Release | toJson -}}
{{- end }}

{{- define "icr-proxy.sidecar" -}}
initContainers:
  {{- include "icr-proxy.initContainer" . | nindent 2 }}
volumes:
  {{- include "icr-proxy.sidecarVolumes" . | nindent 2 }}
{{- end }}

{{/* Native: an init container that keeps running. Later containers start when its start-up probe
     has passed, and the kubelet ends it after the last of them, so that Jobs end. */}}
{{- define "icr-proxy.initContainer" -}}
{{- $own := include "icr-proxy.within" . | fromJson -}}
- {{ include "icr-proxy.container" $own | indent 2 | trim }}
  restartPolicy: Always
  {{- if include "icr-proxy.adminReachable" $own }}
  ports:
    - {name: admin, containerPort: {{ include "icr-proxy.adminPort" $own }}, protocol: TCP}
  {{- end }}
  startupProbe:
    {{- include "icr-proxy.startupProbe" $own | nindent 4 }}
  livenessProbe:
    {{- include "icr-proxy.livenessProbe" $own | nindent 4 }}
{{- end }}

{{- define "icr-proxy.sidecarVolumes" -}}
{{- include "icr-proxy.volumes" (include "icr-proxy.within" . | fromJson) -}}
{{- end }}

{{- define "icr-proxy.sidecarChecksum" -}}
{{- include "icr-proxy.restartChecksum" (include "icr-proxy.within" . | fromJson) -}}
{{- end }}

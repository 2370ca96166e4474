{{/* Where the proxy may connect to: DNS, the API, and what else the user says. */}}
{{- define "icr-proxy.egress" -}}
{{- $policy := .Values.networkPolicy -}}
# The cluster's DNS, and a node's own cache of it (its usual address).
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
    {{- if has "IPv4" $policy.ipFamilies }}
    - ipBlock: {cidr: 169.254.20.10/32}
    {{- end }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
- to:
    {{- if $policy.api }}
    {{- toYaml $policy.api | nindent 4 }}
    {{- else }}
    # Policies know no names: anything but private, shared and link-local networks, where
    # clouds keep their metadata services.
    {{- if has "IPv4" $policy.ipFamilies }}
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
    {{- end }}
    {{- if has "IPv6" $policy.ipFamilies }}
    - ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
    {{- end }}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ include "icr-proxy.apiPort" . }}}
{{- with $policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The proxy's configuration: what the user says, and what the mode needs where he says nothing. A
     list of the user's replaces the mode's. */}}
{{- define "icr-proxy.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $given := or .Values.privateKey.secretName .Values.privateKey.volume -}}
{{- if $given -}}
{{- include "icr-proxy.unless" (list $config "app" "private_keys_dir" "/etc/icr-proxy/keys") -}}
{{- end -}}
{{- if .Values.audit.enabled -}}
{{- if ne .Values.mode "gateway" -}}
{{- fail "audit.enabled: is for the gateway; a sidecar's volume would have to outlive its pod, give that pod one and set config.audit.directory" -}}
{{- end -}}
{{- include "icr-proxy.unless" (list $config "audit" "directory" "/var/lib/icr-proxy/audit") -}}
{{- end -}}
{{- if eq .Values.mode "gateway" -}}
{{- include "icr-proxy.unless" (list $config "admin" "bind" "*:9090") -}}
{{- include "icr-proxy.unless" (list $config "shutdown" "min_drain" "5s") -}}
{{- if not $config.listeners -}}
{{- $_ := set $config "listeners" (list (include "icr-proxy.listener" . | fromYaml)) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.env -}}
{{- $upstream := $config.upstream | default dict -}}
{{- $url := dig "base_url" "" $upstream | toString | lower -}}
{{- $isPlain := and (hasPrefix "http://" $url) (not (regexMatch "^http://(127\\.|localhost|\\[::1\\])" $url)) -}}
{{- if and $isPlain (not (dig "allow_plain" false $upstream)) -}}
{{- fail (printf "config.upstream.base_url: %s would carry access tokens unencrypted; write https, or set config.upstream.allow_plain: true if the way is safe" $upstream.base_url) -}}
{{- end -}}
{{- $app := $config.app | default dict -}}
{{- $_ := required "config.app.id: set it to the App ID of your ICR app" $app.id -}}
{{- $_ := required "privateKey.secretName: set it to the Secret that has the private key of your ICR app" (or $given $app.private_key_file $app.private_keys_dir) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/* Sets a key of a section unless it is there, be it false or 0, which `merge` would pass over. */}}
{{- define "icr-proxy.unless" -}}
{{- $config := index . 0 -}}
{{- $section := get $config (index . 1) | default dict -}}
{{- if not (hasKey $section (index . 2)) -}}{{- $_ := set $section (index . 2) (index . 3) -}}{{- end -}}
{{- $_ := set $config (index . 1) $section -}}
{{- end }}

{{/* Whoever reaches a listener acts as the installation he names. `*` is every address, of IPv4 and
     of IPv6, whatever the cluster has. The word `exposed` is said for users who let the network policy choose who that is; all others name callers or say it. */}}
{{- define "icr-proxy.listener" -}}
bind: "*:8080"
{{- if and .Values.networkPolicy.enabled (not .Values.config.callers) }}
exposed: true
{{- end }}
{{- end }}

{{- define "icr-proxy.scheme" -}}
{{- $listeners := (include "icr-proxy.config" . | fromYaml).listeners | default (list dict) -}}
{{- ternary "https" "http" (hasKey (first $listeners | dig "tls" dict) "cert") -}}
{{- end }}

{{/* Fails where the proxy itself would refuse to start, or where nothing could be scraped. */}}
{{- define "icr-proxy.guarded" -}}
{{- if and .Values.monitoring.serviceMonitor.enabled (not (include "icr-proxy.adminReachable" .)) -}}
{{- fail (printf "monitoring.serviceMonitor.enabled: nobody can scrape the admin port at %s, which is for the pod alone; leave config.admin.bind out, or do without a ServiceMonitor" (include "icr-proxy.adminBind" .)) -}}
{{- end -}}
{{- if not (or .Values.networkPolicy.enabled .Values.config.callers .Values.config.listeners) -}}
{{- fail "config.callers: whoever reaches the gateway acts as the installation he names; list callers, leave networkPolicy.enabled on, or say config.listeners: [{bind: \"*:8080\", exposed: true}]" -}}
{{- end -}}
{{- end }}

{{- define "icr-proxy.adminBind" -}}
{{- (include "icr-proxy.config" . | fromYaml).admin | default dict | dig "bind" "127.0.0.1:9090" -}}
{{- end }}

{{/* Whether anybody beyond the pod can reach the admin port: "true", or nothing. */}}
{{- define "icr-proxy.adminReachable" -}}
{{- if not (regexMatch "^(127\\.|localhost:|\\[::1\\]:|unix:|systemd:)" (include "icr-proxy.adminBind" .)) -}}
true
{{- end -}}
{{- end }}

{{- define "icr-proxy.adminPort" -}}
{{- regexFind "[0-9]+$" (include "icr-proxy.adminBind" .) | default "9090" -}}
{{- end }}

{{/* The port of the first listener, which is the one that the service leads to. */}}
{{- define "icr-proxy.dataPort" -}}
{{- $listeners := (include "icr-proxy.config" . | fromYaml).listeners | default (list dict) -}}
{{- regexFind "[0-9]+$" (first $listeners | dig "bind" "127.0.0.1:8080") | default "8080" -}}
{{- end }}

{{/* The port of the API: that of upstream.address, or else of upstream.base_url. */}}
{{- define "icr-proxy.apiPort" -}}
{{- $upstream := (include "icr-proxy.config" . | fromYaml).upstream | default dict -}}
{{- $base := urlParse (dig "base_url" "https://api.carbonregistry.com" $upstream) -}}
{{- $beside := regexReplaceAll "^(\\[[^]]*\\]|[^:]*):?" (dig "address" "" $upstream | default "") "" -}}
{{- $inside := regexReplaceAll "^(\\[[^]]*\\]|[^:]*):?" $base.host "" -}}
{{- $usual := ternary "80" "443" (eq $base.scheme "http") -}}
{{- if regexMatch "^[0-9]+$" $beside -}}{{ $beside }}{{- else -}}{{ default $usual $inside }}{{- end -}}
{{- end }}

{{/* Seconds of a duration as the proxy writes them, rounded up: 500ms, 25s, 1.5m, or a number. */}}
{{- define "icr-proxy.seconds" -}}
{{- $text := toString . -}}
{{- $factor := get (dict "ms" 0.001 "m" 60.0 "h" 3600.0) (regexFind "[a-z]+$" $text) | default 1.0 -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) $factor | ceil | int -}}
{{- end }}

{{/* The proxy ends by itself after shutdown.max_drain; only if it does not, it is killed. There is
     no preStop hook: it serves on for shutdown.min_drain, until no balancer sends it anything. */}}
{{- define "icr-proxy.gracePeriod" -}}
{{- $shutdown := (include "icr-proxy.config" . | fromYaml).shutdown | default dict -}}
{{- add 5 (include "icr-proxy.seconds" (dig "max_drain" "25s" $shutdown)) -}}
{{- end }}

{{/* A pod is replaced only for keys that a running proxy cannot take up; all others it reads by
     itself from the changed ConfigMap. */}}
{{- define "icr-proxy.restartChecksum" -}}
{{- $config := include "icr-proxy.config" . | fromYaml -}}
{{- $_ := unset $config "callers" -}}
{{- range $section, $keys := include "icr-proxy.liveKeys" . | fromYaml -}}
{{- $kept := get $config $section | default dict -}}
{{- range $keys -}}{{- $_ := unset $kept . -}}{{- end -}}
{{- $_ := set $config $section $kept -}}
{{- end -}}
{{- toYaml $config | sha256sum -}}
{{- end }}

{{- define "icr-proxy.liveKeys" -}}
browser: [allow_origins]
headers: [cache_control, drop, forwarded, installation, organization, rewrite_links]
limits: [body, in_flight, replay_buffer]
logs: [level, sample_reads]
policy: [app_endpoints, default, duplicate_guard, mode, read_only, rules]
tracing: [share]
upstream: [api_version, api_version_override]
{{- end }}

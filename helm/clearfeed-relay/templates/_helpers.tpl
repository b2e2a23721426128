{{/* Name of the chart's resources: the release's, where it says what it is already. */}}
{{- define "clearfeed-relay.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of what receives. With a spool it has room for the hash that Kubernetes puts behind it, into a label. */}}
{{- define "clearfeed-relay.intakeName" -}}
{{- $name := include "clearfeed-relay.fullname" . -}}
{{- if ne .Values.mode "split" -}}
{{- $name -}}
{{- else -}}
{{- if include "clearfeed-relay.spoolDirectory" . }}{{ $name = $name | trunc 45 | trimSuffix "-" }}{{ end -}}
{{- printf "%s-intake" $name -}}
{{- end -}}
{{- end -}}

{{- define "clearfeed-relay.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "clearfeed-relay.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "clearfeed-relay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of pods beside the relay's: none of its Services and policies is theirs. Takes the root and the component. */}}
{{- define "clearfeed-relay.sideSelector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}
{{- define "clearfeed-relay.sideLabels" -}}
{{ include "clearfeed-relay.sideSelector" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "clearfeed-relay.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "clearfeed-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "clearfeed-relay.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Where things are mounted. */}}
{{- define "clearfeed-relay.configFile" -}}/etc/clearfeed-relay/relay.yaml{{- end -}}
{{- define "clearfeed-relay.secretsFolder" -}}/etc/clearfeed-relay/secrets{{- end -}}
{{- define "clearfeed-relay.tokensFolder" -}}/etc/clearfeed-relay/tokens{{- end -}}
{{- define "clearfeed-relay.kafkaFolder" -}}/etc/clearfeed-relay/kafka{{- end -}}
{{- define "clearfeed-relay.tlsFolder" -}}/etc/clearfeed-relay/tls{{- end -}}

{{/* Null is how Helm unsets a value; to the relay it is one. */}}
{{- define "clearfeed-relay.withoutNulls" -}}
{{- $kept := dict -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- $_ := set $kept $key (include "clearfeed-relay.withoutNulls" $value | fromJson) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $kept $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $kept -}}
{{- end -}}

{{/* The relay's configuration: that of the values, and what the chart knows better where they do not say it. In JSON, which
     is YAML too: Helm's own YAML writes 10000000 as 1e+07. */}}
{{- define "clearfeed-relay.config" -}}
{{- $config := include "clearfeed-relay.withoutNulls" .Values.config | fromJson -}}
{{- /* A namespace has no dot: no two releases give the same. */ -}}
{{- $name := printf "%s.%s" .Release.Namespace (include "clearfeed-relay.fullname" .) -}}
{{- if not $config.sources -}}{{- fail "config.sources: wanted a source, such as --set config.sources.main.public_url=https://hooks.example.com/clearfeed/events" -}}{{- end -}}
{{- range $source, $settings := $config.sources -}}
{{- if not (default dict $settings).public_url -}}{{- fail (printf "config.sources.%s.public_url: wanted the URL as ClearFeed has it, such as https://hooks.example.com/clearfeed/events" $source) -}}{{- end -}}
{{- if not (regexMatch "^https://[^/]+/" $settings.public_url) -}}{{- fail (printf "config.sources.%s.public_url: wanted https://, a host and a path, found %s" $source $settings.public_url) -}}{{- end -}}
{{- if not $settings.signing_secret_files -}}
{{- $secret := get $.Values.signingSecrets $source -}}
{{- if not $secret -}}{{- fail (printf "signingSecrets.%s.name: wanted the name of the Secret with the signing secret of config.sources.%s" $source $source) -}}{{- end -}}
{{- $folder := printf "%s/%s" (include "clearfeed-relay.secretsFolder" $) $source -}}
{{- $_ := set $settings "signing_secret_files" (list (printf "%s/current" $folder) (printf "%s/previous" $folder)) -}}
{{- end -}}
{{- end -}}
{{- range $source, $_ := .Values.apiTokens -}}
{{- if not (hasKey $config.sources $source) -}}{{- fail (printf "apiTokens.%s: there is no config.sources.%s" $source $source) -}}{{- end -}}
{{- $api := default dict (get $config.sources $source).api -}}
{{- if not $api.token_file -}}{{- $_ := set $api "token_file" (printf "%s/%s/token" (include "clearfeed-relay.tokensFolder" $) $source) -}}{{- end -}}
{{- $_ := set (get $config.sources $source) "api" $api -}}
{{- end -}}
{{- range $source, $settings := $config.sources -}}
{{- if and $settings.api (not $settings.api.token_file) -}}{{- fail (printf "apiTokens.%s.name: wanted the name of the Secret with the token for config.sources.%s.api" $source $source) -}}{{- end -}}
{{- end -}}
{{- range $source, $_ := .Values.signingSecrets -}}
{{- if not (hasKey $config.sources $source) -}}{{- fail (printf "signingSecrets.%s: there is no config.sources.%s" $source $source) -}}{{- end -}}
{{- end -}}
{{- $kafka := default dict $config.kafka -}}
{{- if not $kafka.bootstrap_servers -}}{{- fail "config.kafka.bootstrap_servers: wanted Kafka's address, such as kafka.kafka.svc:9092" -}}{{- end -}}
{{- $properties := default dict $kafka.properties -}}
{{- $files := default dict $kafka.property_files -}}
{{- range $property, $_ := .Values.kafkaSecrets -}}
{{- $path := printf "%s/%s" (include "clearfeed-relay.kafkaFolder" $) $property -}}
{{- if hasSuffix ".location" $property -}}{{- $_ := set $properties $property $path -}}{{- else -}}{{- $_ := set $files $property $path -}}{{- end -}}
{{- end -}}
{{- if $properties -}}{{- $_ := set $kafka "properties" $properties -}}{{- end -}}
{{- if $files -}}{{- $_ := set $kafka "property_files" $files -}}{{- end -}}
{{- /* Strimzi's operator makes them, and two makers would race. */ -}}
{{- if and .Values.strimzi.enabled (not (hasKey $kafka "create_topics")) }}{{ $_ := set $kafka "create_topics" false }}{{ end -}}
{{- $_ := set $config "kafka" $kafka -}}
{{- $forward := default dict $config.forward -}}
{{- if not $forward.group -}}{{- $_ := set $forward "group" $name -}}{{- end -}}
{{- if not $forward.transactional_id -}}{{- $_ := set $forward "transactional_id" (printf "%s-{hostname}" $name) -}}{{- end -}}
{{- $_ := set $config "forward" $forward -}}
{{- $intake := default dict $config.intake -}}
{{- if .Values.tls.secretName -}}
{{- $folder := include "clearfeed-relay.tlsFolder" . -}}
{{- $_ := set $intake "tls" (dict "certificate_file" (printf "%s/tls.crt" $folder) "key_file" (printf "%s/tls.key" $folder)) -}}
{{- end -}}
{{- $_ := set $config "intake" $intake -}}
{{- toPrettyJson $config -}}
{{- end -}}

{{/* A duration of the configuration, in ms: takes a key's name, for messages, and the value. */}}
{{- define "clearfeed-relay.milliseconds" -}}
{{- $key := index . 0 -}}
{{- $text := index . 1 | toString | replace " " "" -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h|d))+$" $text) -}}
{{- fail (printf "%s: found %s; with strimzi.enabled wanted a number with ms, s, m, h or d, such as 72h" $key $text) -}}
{{- end -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" $text -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int64) (get $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* A size, in bytes: takes a key's name, the value, and what it is needed for. */}}
{{- define "clearfeed-relay.bytes" -}}
{{- $key := index . 0 -}}
{{- $text := index . 1 | toString | replace " " "" -}}
{{- if not (kindIs "string" (index . 1)) }}{{ $text = index . 1 | int64 | toString }}{{ end -}}
{{- if not (regexMatch "^[0-9]+([KMGT]i?)?B?$" $text) -}}
{{- fail (printf "%s: found %s; with %s wanted a whole number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB" $key $text (index . 2)) -}}
{{- end -}}
{{- $bytes := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[KMGT]i?" $text -}}
{{- range until (index (dict "" 0 "K" 1 "M" 2 "G" 3 "T" 4) (trimSuffix "i" $unit)) -}}
{{- $bytes = mul $bytes (ternary 1024 1000 (hasSuffix "i" $unit)) -}}
{{- end -}}
{{- $bytes -}}
{{- end -}}

{{/* Where the spool's volume is mounted; nothing where there is no spool. */}}
{{- define "clearfeed-relay.spoolDirectory" -}}
{{- with include "clearfeed-relay.withoutNulls" (default dict .Values.config.spool) | fromJson -}}
{{- if not (regexMatch "^/[^/]" (default "" .directory | toString)) -}}
{{- fail (printf "config.spool.directory: found %v; wanted an absolute path, such as /var/lib/clearfeed-relay, where the chart mounts a volume" (default "nothing" .directory)) -}}
{{- end -}}
{{- $wanted := include "clearfeed-relay.bytes" (list "config.spool.max_size" (default "1GiB" .max_size) "a volume") | int64 | mul 2 -}}
{{- if lt (include "clearfeed-relay.bytes" (list "spool.size" $.Values.spool.size "config.spool") | int64) $wanted -}}
{{- fail (printf "spool.size: found %s; wanted at least twice config.spool.max_size, %d bytes: a file that is broken stays beside the one that is made of it" $.Values.spool.size $wanted) -}}
{{- end -}}
{{- .directory -}}
{{- end -}}
{{- end -}}

{{/* Ports, as the configuration has them. */}}
{{- define "clearfeed-relay.intakePort" -}}
{{- (default dict .Values.config.intake).listen | default "0.0.0.0:8080" | splitList ":" | last -}}
{{- end -}}
{{- define "clearfeed-relay.adminPort" -}}
{{- (default dict .Values.config.admin).listen | default "0.0.0.0:9090" | splitList ":" | last -}}
{{- end -}}

{{/* More than the relay takes to drain, or the kubelet ends it before. */}}
{{- define "clearfeed-relay.gracePeriod" -}}
{{- $drain := (default dict .Values.config.intake).shutdown_timeout | default "25s" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- .Values.terminationGracePeriodSeconds -}}
{{- else if regexMatch "^[0-9]+s$" $drain -}}
{{- add 5 (trimSuffix "s" $drain) -}}
{{- else -}}
{{- fail (printf "terminationGracePeriodSeconds: wanted, in seconds, 5 more than config.intake.shutdown_timeout, which is %s" $drain) -}}
{{- end -}}
{{- end -}}

{{/* Ports of the REST APIs that are asked, as JSON. */}}
{{- define "clearfeed-relay.apiPorts" -}}
{{- $ports := list -}}
{{- range (include "clearfeed-relay.config" . | fromJson).sources -}}
{{- with .api -}}
{{- $port := regexFind ":[0-9]+(/|$)" (default "https://api.clearfeed.app" .base_url) | trimAll ":/" -}}
{{- $ports = append $ports (default "443" $port) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* Hosts of all public URLs with their paths, as JSON. */}}
{{- define "clearfeed-relay.hosts" -}}
{{- $hosts := dict -}}
{{- range .Values.config.sources -}}
{{- $host := regexReplaceAll "^https://([^/:]+).*$" .public_url "${1}" | lower -}}
{{- $path := regexReplaceAll "^https://[^/]+" .public_url "" | splitList "?" | first -}}
{{- $_ := set $hosts $host (append (default list (get $hosts $host)) $path) -}}
{{- end -}}
{{- toJson $hosts -}}
{{- end -}}

{{/* Everything that is mounted beside the configuration; takes the root and the role. What only forwards sees no signing secret, and
     what only receives no token. */}}
{{- define "clearfeed-relay.volumes" -}}
{{- $root := index . 0 -}}
{{- $hasIntake := ne (index . 1) "forward" -}}
- name: config
  configMap:
    name: {{ include "clearfeed-relay.fullname" $root }}
{{- range $source, $secret := ternary $root.Values.signingSecrets dict $hasIntake }}
- name: {{ printf "secret-%s" $source | replace "_" "-" | lower | trunc 63 }}
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ $secret.name }}
          items:
            - key: {{ default "signing-secret" $secret.key }}
              path: current
      # Missing: retired.
      - secret:
          name: {{ $secret.name }}
          optional: true
          items:
            - key: {{ default "signing-secret-previous" $secret.previousKey }}
              path: previous
{{- end }}
{{- range $source, $secret := ternary dict $root.Values.apiTokens (eq (index . 1) "intake") }}
- name: {{ printf "token-%s" $source | replace "_" "-" | lower | trunc 63 }}
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0440
    items:
      - key: {{ default "token" $secret.key }}
        path: token
{{- end }}
{{- with $root.Values.kafkaSecrets }}
- name: kafka
  projected:
    defaultMode: 0440
    sources:
    {{- range $property, $secret := . }}
      - secret:
          name: {{ $secret.name }}
          items:
            - key: {{ $secret.key }}
              path: {{ $property }}
    {{- end }}
{{- end }}
{{- with ternary $root.Values.tls.secretName "" $hasIntake }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "clearfeed-relay.mounts" -}}
{{- $root := index . 0 -}}
{{- $hasIntake := ne (index . 1) "forward" -}}
- name: config
  mountPath: {{ include "clearfeed-relay.configFile" $root }}
  subPath: relay.yaml
  readOnly: true
{{- range $source, $_ := ternary $root.Values.signingSecrets dict $hasIntake }}
- name: {{ printf "secret-%s" $source | replace "_" "-" | lower | trunc 63 }}
  mountPath: {{ include "clearfeed-relay.secretsFolder" $root }}/{{ $source }}
  readOnly: true
{{- end }}
{{- range $source, $_ := ternary dict $root.Values.apiTokens (eq (index . 1) "intake") }}
- name: {{ printf "token-%s" $source | replace "_" "-" | lower | trunc 63 }}
  mountPath: {{ include "clearfeed-relay.tokensFolder" $root }}/{{ $source }}
  readOnly: true
{{- end }}
{{- if $root.Values.kafkaSecrets }}
- name: kafka
  mountPath: {{ include "clearfeed-relay.kafkaFolder" $root }}
  readOnly: true
{{- end }}
{{- if and $hasIntake $root.Values.tls.secretName }}
- name: tls
  mountPath: {{ include "clearfeed-relay.tlsFolder" $root }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* Pod Security, restricted. */}}
{{- define "clearfeed-relay.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "clearfeed-relay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

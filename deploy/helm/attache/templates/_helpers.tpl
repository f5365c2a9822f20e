{{- define "attache.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "attache.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- define "attache.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "attache.selector" . }}
{{- end }}

{{- define "attache.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "attache.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "attache.name" .) }}
{{- end }}

{{- define "attache.secret" -}}
{{- if eq .Values.certificate.from "secret" }}{{ .Values.certificate.secretName }}{{ else }}{{ include "attache.name" . }}-certificate{{ end }}
{{- end }}

{{- /* The config that pods get, as a text. */ -}}
{{- define "attache.config" -}}
{{- $config := .Values.inject.config -}}
{{- if kindIs "map" $config }}{{ toYaml $config }}{{ else }}{{ $config }}{{ end }}
{{- end }}

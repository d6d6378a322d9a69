{{/* Name of everything in the release's namespace. */}}
{{- define "rectrain.name" -}}
{{- $name := printf "%s-%s" .Release.Name .Chart.Name }}
{{- if contains .Chart.Name .Release.Name }}{{ $name = .Release.Name }}{{ end }}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* Name of what has no namespace: two releases of one name may stand side by side. */}}
{{- define "rectrain.clusterName" -}}
{{ .Release.Namespace }}:{{ include "rectrain.name" . }}
{{- end }}

{{- define "rectrain.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rectrain.labels" -}}
{{ include "rectrain.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "rectrain.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "rectrain.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "rectrain.certificate" -}}
{{ include "rectrain.name" . }}-certificate
{{- end }}

{{- define "rectrain.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "rectrain.serviceAccount" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

locals {
  commands_url = try(module.commands[0].uri, "")
  modules = merge(
    module.event_function,
    { search = module.search },
    { for made in module.commands : "commands" => made }
  )
}

output "next_steps" {
  description = "The next steps."
  value       = <<-TEXT
    Store a scan:    gcloud storage cp scan.dcm gs://${local.bucket_names.landing}/
    Search:          curl -H "Authorization: Bearer $(gcloud auth print-identity-token)" ${module.search.uri}/studies
    Delete a study:  gcloud pubsub topics publish ${local.topic_ids.deletes} --message '{"path": "studies/UID"}'
    Export a study:  gcloud pubsub topics publish ${local.topic_ids.exports} --message '{"path": "studies/UID", "destination": "gs://${local.bucket_names.export}/name", "format": "dicom"}'
    %{if var.commands~}
    Commands:        curl -H "Authorization: Bearer $(gcloud auth print-identity-token)" ${module.commands[0].uri}/exports --json '{"path": "studies/UID", "destination": "gs://${local.bucket_names.export}/name", "format": "dicom"}'
    %{endif~}
    See outcomes:    gcloud storage cat "gs://${local.bucket_names.ledger}/${local.topology.ledger_subscription.filename_prefix}**"
    Check all of it: dicom-functions doctor
    Dashboard:       https://console.cloud.google.com/monitoring/dashboards?project=${var.project}
    %{if length(var.notification_channels) == 0 && var.alert_email == ""~}
    Alerts notify nobody yet: set alert_email or notification_channels. Dead letters are kept for ${local.delivery.dead_letter_retention_s / 86400} days.
    %{endif~}
  TEXT
}

output "search_url" {
  description = "URL of search."
  value       = module.search.uri
}

output "commands_url" {
  description = "URL of commands; empty: not deployed."
  value       = local.commands_url
}

output "landing_bucket" {
  description = "Where to upload scans."
  value       = local.bucket_names.landing
}

output "system" {
  description = "Names of all resources, for the command dicom-functions."
  value = {
    project      = var.project
    region       = var.region
    dicom_store  = local.dicom_store
    buckets      = local.bucket_names
    search_url   = module.search.uri
    build        = local.build_email
    delivery     = google_service_account.delivery.email
    commands_url = local.commands_url
    environments = { for f, m in local.modules : f => m.environment }
    accounts     = { for f, m in local.modules : f => m.account }
    source       = local.source_hash

    search_ingress  = var.search_ingress
    webhook_secrets = { for name, webhook in var.webhooks : name => webhook.secret }
  }
}

output "roles" {
  description = "The custom roles and what they allow."
  value       = local.custom_roles
}

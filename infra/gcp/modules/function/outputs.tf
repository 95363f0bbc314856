output "name" {
  description = "Name of the function and of its Cloud Run service."
  value       = local.name
}

output "uri" {
  description = "Its URL."
  value       = google_cloudfunctions2_function.this.service_config[0].uri
}

output "member" {
  description = "Its account, in IAM's form."
  value       = google_service_account.this.member
}

output "account" {
  description = "Its account's email."
  value       = google_service_account.this.email
}

output "environment" {
  description = "Its environment variables."
  value       = google_cloudfunctions2_function.this.service_config[0].environment_variables
}

output "name" {
  description = "Name of the function and of its Cloud Run service."
  value       = module.function.name
}

output "uri" {
  description = "Its URL, which Pub/Sub calls."
  value       = module.function.uri
}

output "member" {
  description = "Its account, in IAM's form."
  value       = module.function.member
}

output "account" {
  description = "Its account's email."
  value       = module.function.account
}

output "environment" {
  description = "Its environment variables."
  value       = module.function.environment
}

output "topic_id" {
  description = "The topic of its events, projects/P/topics/T; null if another function owns it."
  value       = try(google_pubsub_topic.this["events"].id, null)
}

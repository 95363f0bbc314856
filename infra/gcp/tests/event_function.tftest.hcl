# The module that is used three times, on its own.
mock_provider "time" {}
mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email  = "mock-account@demo-project.iam.gserviceaccount.com"
      member = "serviceAccount:mock-account@demo-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloudfunctions2_function" {
    defaults = { service_config = { uri = "https://mock-uc.a.run.app" } }
  }
}

variables {
  entry_point = "delete_resource"
  function = {
    project         = "demo-project"
    project_number  = "424242424242"
    region          = "us-central1"
    source_bucket   = "source"
    source_object   = "hash.zip"
    repository      = "projects/demo-project/locations/us-central1/repositories/r"
    build_account   = "projects/demo-project/serviceAccounts/b@demo-project.iam.gserviceaccount.com"
    worker_pool     = ""
    vpc_connector   = ""
    vpc_egress      = "PRIVATE_RANGES_ONLY"
    timeout_seconds = 540
    grants_spread   = "180s"
  }
  size        = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 5, concurrency = 4 }
  environment = { A = "b" }
  deliveries = {
    events = {
      topic                    = "deletes"
      own_topic                = true
      path                     = ""
      filter                   = ""
      subscription             = "deletes-push"
      dead_letter_topic        = "deletes-dead"
      dead_letter_subscription = "deletes-hold"
      max_delivery_attempts    = 7
      maximum_backoff_s        = 600
    }
    follow_ups = {
      topic                    = "next"
      own_topic                = true
      path                     = "/follow-ups"
      filter                   = ""
      subscription             = "next-push"
      dead_letter_topic        = "next-dead"
      dead_letter_subscription = "next-hold"
      max_delivery_attempts    = 7
      maximum_backoff_s        = 600
    }
  }
  delivery = {
    budget_s                = 480
    ack_deadline_s          = 600
    minimum_backoff_s       = 10
    retention_s             = 604800
    dead_letter_retention_s = 2678400
  }
  pusher       = { email = "push@demo-project.iam.gserviceaccount.com", member = "serviceAccount:push@demo-project.iam.gserviceaccount.com" }
  pubsub_agent = "serviceAccount:service-1@gcp-sa-pubsub.iam.gserviceaccount.com"
  kms_key      = ""
}

run "made" {
  module {
    source = "./modules/event_function"
  }
  assert {
    condition     = alltrue([for s in google_pubsub_subscription.push : s.push_config[0].oidc_token[0].audience == output.uri])
    error_message = "The token is for the function and nobody else."
  }
  assert {
    condition     = google_pubsub_subscription.push["events"].push_config[0].push_endpoint == output.uri
    error_message = "Events call the function."
  }
  assert {
    condition     = google_pubsub_subscription.push["follow_ups"].push_config[0].push_endpoint == "${output.uri}/follow-ups"
    error_message = "Follow-up messages call another path: that is how the function tells them."
  }
  assert {
    condition     = google_pubsub_topic_iam_member.follow_ups["follow_ups"].member == output.member && google_pubsub_topic_iam_member.follow_ups["follow_ups"].topic == "next"
    error_message = "The function publishes its follow-up messages."
  }
  assert {
    condition     = alltrue([for s in google_pubsub_subscription.push : s.dead_letter_policy[0].max_delivery_attempts == 7])
    error_message = "Attempts."
  }
  assert {
    condition     = alltrue([for s in concat(values(google_pubsub_subscription.push), values(google_pubsub_subscription.hold)) : s.expiration_policy[0].ttl == ""])
    error_message = "Subscriptions never expire."
  }
  assert {
    condition     = output.environment == tomap({ A = "b", THREADS = "4", LOG_EXECUTION_ID = "false" })
    error_message = "As many threads as requests at a time, and each line of the log in one piece."
  }
}

run "deadlines_out_of_order" {
  command = plan
  module {
    source = "./modules/event_function"
  }
  variables {
    delivery = {
      budget_s                = 550
      ack_deadline_s          = 600
      minimum_backoff_s       = 10
      retention_s             = 604800
      dead_letter_retention_s = 2678400
    }
  }
  expect_failures = [google_pubsub_subscription.push]
}

# Cloud Storage gives a new bucket convenience bindings: the project's viewers may read every object in it, and its
# editors may change them. Here the viewers and editors lose them, and the owners keep theirs: without these, an owner
# could not administer the bucket. Each of these resources is the only one that decides who has its role.
locals {
  convenience = {
    "roles/storage.legacyBucketReader" = []
    "roles/storage.legacyObjectReader" = []
    "roles/storage.legacyBucketOwner"  = ["projectOwner:${var.project}"]
    "roles/storage.legacyObjectOwner"  = ["projectOwner:${var.project}"]
  }
  convenience_bindings = merge([
    for bucket in keys(local.buckets) : {
      for role, members in local.convenience : "${bucket} ${role}" => { bucket = bucket, role = role, members = members }
    }
  ]...)
}

resource "google_storage_bucket_iam_binding" "convenience" {
  for_each = local.convenience_bindings
  bucket   = google_storage_bucket.data[each.value.bucket].name
  role     = each.value.role
  members  = each.value.members
}

# shellcheck shell=bash disable=SC2154
# Part of deploy.sh, which reads this file: why first deployments fail, and what to do then.

# cloud.google.com/build/docs/locations, "Restricted regions for some projects", read 2026-11-24.
readonly BUILD_REGIONS="us-central1 us-west2 europe-west1 asia-east1 australia-southeast1 southamerica-east1"

warn_of_region() {
    local chosen=${region:-us-central1}
    [[ " $BUILD_REGIONS " != *" $chosen "* && -z $(variable worker_pool) ]] || return 0
    say "note: new projects can build functions only in ${BUILD_REGIONS// /, }."
    say "      In $chosen the build may be refused; no resource for data is created before it succeeds."
}

# A function whose first build failed remains in state FAILED. Terraform does not know it, and could not create it again.
delete_failed_functions() {
    local found name
    look_up "https://cloudfunctions.googleapis.com/v2/projects/$project/locations/-/functions?pageSize=1000"
    [ "$status" = 200 ] || return 0
    printf '%s\n' "$body" >"$scratch/functions.json"
    found=$(tf state pull | python3 -c '
import json, sys
functions = json.load(open(sys.argv[1])).get("functions", [])
state = json.loads(sys.stdin.read().strip() or "{}")
known = {
    instance["attributes"]["id"]
    for resource in state.get("resources", [])
    if resource["type"] == "google_cloudfunctions2_function"
    for instance in resource["instances"]
}
for function in functions:
    name = function["name"]
    ours = name.rpartition("/")[2].startswith("dicom-")
    if ours and function["state"] == "FAILED" and name not in known:
        print(name)
' "$scratch/functions.json") || die "could not compare the functions with the state"
    for name in $found; do
        say "deleting the function of a failed build: $name"
        call "$token" --fail --request DELETE "https://cloudfunctions.googleapis.com/v2/$name" >/dev/null 2>&1 ||
            die "could not delete $name. fix: delete it in the console, then run the same command again"
    done
    for name in $found; do
        wait_until_gone "$name"
    done
}

wait_until_gone() { # NAME OF A FUNCTION
    local end=$((SECONDS + OUTCOME_LIMIT_S))
    while ((SECONDS < end)); do
        look_up "https://cloudfunctions.googleapis.com/v2/$1"
        [ "$status" != 404 ] || return 0
        sleep "$POLL_S"
    done
    die "$1 was not deleted within $OUTCOME_LIMIT_S s: run the same command again"
}

explain() { # FILE WITH THE OUTPUT OF TERRAFORM
    local text
    # Terraform breaks and frames its messages.
    text=$(tr '\n' ' ' <"$1" | sed 's/│/ /g; s/╷/ /g; s/╵/ /g; s/  */ /g')
    case $text in
        *"cannot run builds in this region"*) explain_region ;;
        *CpuAllocPerProjectRegion* | *MemAllocPerProjectRegion* | *"Max instances must be set to"* | *"maxScale may not exceed"*)
            explain_quota ;;
        *"onstraints/"* | *"rganization policy"* | *"rganization Policy"*) explain_policy ;;
        *"already exists"*) explain_name ;;
        *denied* | *DENIED* | *"does not have"*) explain_denied ;;
    esac
}

explain_region() {
    cat >&2 <<TEXT

This project cannot build functions in ${region:-us-central1}. Google restricts new projects to these regions:
  ${BUILD_REGIONS// /, }
No resource for data has been created yet. Do one of the following:
  - Run this again with --region and one of these regions. The scans can be elsewhere: set dataset_location in
    $TFVARS. (europe-west1 has no Healthcare API: set dataset_location = "europe-west4" or "eu" there.)
  - Set worker_pool in $TFVARS to a private pool of Cloud Build.
  - Ask Google Cloud's support to lift the restriction, then run the same command again.
TEXT
}

explain_quota() {
    cat >&2 <<TEXT

The settings of a function are over the quota of this region: Cloud Run compares max_instances x cpu of a function with
the quota "Total CPU allocation, in milli vCPU, per project per region" (CpuAllocPerProjectRegion), and its memory with
MemAllocPerProjectRegion. New projects have 10,000 to 20,000 milli vCPU. Do one of the following:
  - Lower max_instances in $TFVARS, such as: functions = { store_upload = { max_instances = 10 } }
  - Ask for more of this quota under IAM & Admin > Quotas (docs/scale.md says how much), then run the same command again.
TEXT
}

explain_policy() {
    cat >&2 <<TEXT

Your organization forbids something that the system needs. The message names the constraint; the table "Constraints of
an organization" in docs/deploy.md has the variable or the exemption for each.
TEXT
}

explain_name() {
    cat >&2 <<TEXT

A resource of this name already exists. If it is a function from an earlier failed build, run the same command again: it
is deleted first. If it is a bucket, somebody else has that name: set bucket_prefix in $TFVARS.
TEXT
}

explain_denied() {
    cat >&2 <<TEXT

A permission was denied. It may take seven minutes or more until every service knows a new permission: wait a little and
run the same command again. If you get the same message again, the permission is really missing.
TEXT
}

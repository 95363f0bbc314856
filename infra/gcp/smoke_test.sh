# shellcheck shell=bash disable=SC2154
# The end of deploy.sh, which reads this file: a synthetic scan is stored, found and deleted as a test.

readonly OUTCOME_LIMIT_S=${DEPLOY_LIMIT_S:-420}      # a cold start, and new permissions
readonly SEARCH_LIMIT_S=${DEPLOY_SEARCH_LIMIT_S:-90} # new permissions, and a search that lags
probe_subscription='' probe_objects=() probe_delete=''

order_delete() {
    gcloud pubsub topics publish dicom-deletes --project="$project" --quiet --message="$probe_delete" >/dev/null &&
        probe_delete=''
}

# After any failure: delete what was stored, the subscription and the objects.
smoke_clean_up() {
    local object
    [ -z "$probe_delete" ] || order_delete 2>/dev/null || true
    [ -z "$probe_subscription" ] ||
        gcloud pubsub subscriptions delete "$probe_subscription" --project="$project" --quiet >/dev/null 2>&1 || true
    for object in ${probe_objects[@]+"${probe_objects[@]}"}; do
        gcloud storage rm "$object" --quiet >/dev/null 2>&1 || true
    done
}

wait_for_outcome() { # NAME OR REQUEST, THE OUTCOMES WANTED
    local end=$((SECONDS + OUTCOME_LIMIT_S)) found pulled
    while ((SECONDS < end)); do
        pulled=$(gcloud pubsub subscriptions pull "$probe_subscription" --project="$project" --auto-ack --limit=1000 --format=json 2>/dev/null || true)
        found=$(python3 -c '
import base64, json, sys
for item in json.load(sys.stdin):
    record = json.loads(base64.b64decode(item["message"]["data"]))
    if sys.argv[1] in (record.get("name"), record.get("request_id")):
        print(record["outcome"], record.get("reason", ""), record.get("detail", ""))
        break
' "$1" <<<"${pulled:-[]}" || true)
        if [ -n "$found" ]; then
            [[ ${found%% *} =~ ^($2)$ ]] || die "the outcome was '$found', not '$2': see the log of the function and docs/deploy.md"
            say "outcome: $found"
            return
        fi
        [[ $pulled == *ackId* ]] || sleep "$POLL_S" # these outcomes were others; the next may be ours
    done
    die "no outcome within $OUTCOME_LIMIT_S s. fix: dicom-functions doctor (docs/deploy.md) names the problem; then run this again"
}

check_search() { # URL, STUDY
    local identity answer='' end=$((SECONDS + SEARCH_LIMIT_S))
    identity=$(gcloud auth print-identity-token --audiences="$1" 2>/dev/null || gcloud auth print-identity-token 2>/dev/null) ||
        die "there is no identity token for search. fix: gcloud auth login"
    while true; do
        answer=$(call "$identity" --write-out '\n%{http_code}' "$1/studies?StudyInstanceUID=$2" 2>/dev/null || true)
        if [ "${answer##*$'\n'}" = 200 ] && grep -qF "$2" <<<"$answer"; then
            say "found by $1/studies"
            return
        fi
        ((SECONDS < end)) || break
        sleep "$POLL_S"
    done
    case ${answer##*$'\n'} in
        200) die "search did not find the stored scan" ;;
        401 | 403) die "search refused the call. fix: add yourself to search_callers in infra/gcp/terraform.tfvars, and run this again" ;;
        '' | 000) die "search cannot be reached at $1" ;;
        *) die "search answered ${answer##*$'\n'}: see its log" ;;
    esac
}

smoke_test() {
    step "Smoke test"
    local study series instance search landing uids limits closed moved name="dicom-smoke-test-$RANDOM$RANDOM"
    search=$(tf output -raw search_url)
    landing=$(tf output -raw landing_bucket)
    limits=$(python3 -m cli.limits "$WORK/system.json")
    uids=$(python3 -m cli.scan "$scratch/scan.dcm")
    read -r study series instance <<<"$uids"
    # Only these outcomes: on a busy system the others would delay ours.
    gcloud pubsub subscriptions create "$name" --project="$project" --topic=dicom-outcomes --expiration-period=1d \
        --message-retention-duration=1h --message-filter="attributes.study = \"$study\" OR attributes.outcome = \"rejected\"" \
        --quiet >/dev/null 2>&1 || die "could not subscribe to the outcomes"
    probe_subscription=$name
    say "storing a synthetic scan (the first call may take a minute)"
    probe_objects=("gs://$landing/$name/scan.dcm")
    moved=$(sed -n 's/^moved //p' <<<"$limits")
    [ -z "$moved" ] || probe_objects+=("${moved%/}/$name/scan.dcm")
    gcloud storage cp "$scratch/scan.dcm" "${probe_objects[0]}" --quiet >/dev/null 2>&1 || die "could not write to gs://$landing"
    wait_for_outcome "$name/scan.dcm" "stored|duplicate"
    closed=$(sed -n 's/^delete //p' <<<"$limits")
    [ -n "$closed" ] ||
        probe_delete="{\"path\":\"studies/$study/series/$series/instances/$instance\",\"request_id\":\"$name\"}"
    if grep '^search ' <<<"$limits" >"$scratch/closed"; then
        say "search was skipped: $(sed 's/^search //' "$scratch/closed")"
    else
        check_search "$search" "$study"
    fi
    if [ -n "$closed" ]; then
        say "delete was skipped: $closed. The synthetic scan stays in the DICOM store: studies/$study"
    else
        order_delete || die "could not publish the delete of studies/$study"
        wait_for_outcome "$name" deleted
    fi
    say "it works"
}

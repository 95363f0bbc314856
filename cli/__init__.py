"""The command `dicom-functions`, for the system on this machine and for a deployed one.

In the order in which a call passes: app (the commands, and how errors are printed), options, system
(which system), clients (Google's libraries for it), the command's own file, output (table, CSV,
JSON; text makes data printable).

    run, demo, viewer       the system on this machine (study_counts: for the viewer's list)
    upload, search          store scans (sources: which files) and find them
    orders                  export and delete
    outcomes, watch         outcomes from the ledger, and new ones
    quarantine              objects that could not be stored
    dead_letters            messages that failed too often
    doctor                  with findings, checks, rights (and needs), probe (and scan, limits)
    reconcile, replay       process what was missed; try again after a fix
    env                     variables for gcloud and client libraries
    conformance             questions to a real DICOM store that no source answers

deploy.sh runs `cli.scan` and `cli.limits` with the standard library alone.
"""

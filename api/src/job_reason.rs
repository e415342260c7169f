//! Why a job is not as asked, in one word: what agents report of a copy and what control notes of a job,
//! with what each means. Each has a paragraph in `docs/job-reasons.md`.

/// Every reason with its meaning, in the order of the page.
pub const ALL: &[(&str, &str)] = &[
    ("COMPLETED", "the program ended by itself, with success, and is started again"),
    ("CRASHED", "the program ended by itself, with an error or by a signal"),
    ("OOM", "the kernel killed the program: it used more memory than its limit"),
    (
        "GUARD_LOST",
        "the guard of the job is gone, and the job with it: killed, or the machine restarted",
    ),
    ("LEASE_EXPIRED", "the host's lease ended, so a `stop` job was ended"),
    ("STOPPED", "it was told to stop"),
    ("DRIVER", "the program could not be started"),
    ("IMAGE", "the image could not be fetched, verified or unpacked on the host"),
    ("SPEC", "what is to run contradicts itself or names what the host does not have"),
    ("NO_DRIVER", "the host has no driver of that kind"),
    ("ISOLATION", "the host cannot isolate the job as its policy needs"),
    ("PROGRAM", "a module could not be started or compiled"),
    ("NO_LEASE", "too little of the host's lease is left to start a `stop` job"),
    ("GUARD", "the guard does not answer, or could not be started"),
    ("STILL_RUNNING", "what ran before has not ended yet"),
    ("UNKNOWN_JOB", "the driver of the host does not know the job"),
    ("DISK", "a file operation failed on the host"),
    ("UNSCHEDULABLE", "no host of the cluster can take the job now"),
    ("PROGRESS_DEADLINE", "the job did not run as asked within ten minutes"),
];

/// What a reason means, in half a sentence; `None` for one that this version does not know.
pub fn meaning(reason: &str) -> Option<&'static str> {
    ALL.iter().find(|(code, _)| *code == reason).map(|(_, meaning)| *meaning)
}

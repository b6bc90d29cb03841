//! What follows from what filters say.

#![allow(clippy::unwrap_used, clippy::or_fun_call, reason = "in a test's helpers a panic is the failure")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_filter::{
    Action, Answer, Decision, Disposition, Exhausted, Finding, HeaderChange, History, Kind, OnFailure, OnSpam,
    OnTooLarge, OnVirus, Policy, Ruling, Symbol, Thresholds, Unchecked, Verdict, Why,
};
use connectord_mail::{Body, Head};

fn found(filter: &str, kind: Kind, finding: Finding) -> Answer {
    Answer { filter: filter.into(), kind, verdict: Verdict::Found(finding) }
}

fn spam(action: Action, milli_score: i32) -> Answer {
    let finding =
        Finding { action, milli_score: Some(milli_score), milli_required: Some(15_000), ..Finding::default() };
    found("rspamd", Kind::Antispam, finding)
}

fn clean() -> Answer {
    found("clamav", Kind::Antivirus, Finding::default())
}

fn virus(name: &str) -> Answer {
    found("clamav", Kind::Antivirus, Finding { viruses: vec![name.into()], ..Finding::default() })
}

fn down(filter: &str, kind: Kind, why: Why) -> Answer {
    Answer { filter: filter.into(), kind, verdict: Verdict::Unchecked(Unchecked::new(why, "it says nothing")) }
}

fn rule(ruling: Ruling) -> Answer {
    found("rules", Kind::Rules, Finding { ruling: Some(ruling), ..Finding::default() })
}

fn decide(policy: &Policy, answers: &[Answer]) -> Decision {
    let decision = policy.decide(answers, History::default());
    let mut turned = answers.to_vec();
    turned.reverse();
    let other = policy.decide(&turned, History::default());
    assert_eq!(decision.disposition, other.disposition, "the order of the answers decides");
    assert_eq!((decision.spam, &decision.viruses), (other.spam, &other.viruses));
    decision
}

const INBOX: Disposition = Disposition::Deliver { folder: None };
const RETRY: Disposition = Disposition::Later { wait: None, postponed: false };

fn folder(name: &str) -> Disposition {
    Disposition::Deliver { folder: Some(name.into()) }
}

#[test]
fn clean_mail_is_delivered_and_says_what_checked_it() {
    let decision = decide(&Policy::default(), &[spam(Action::NoAction, 400), clean()]);
    assert_eq!(decision.disposition, INBOX);
    assert!(!decision.spam && decision.reason.is_empty());
    let traces: Vec<_> = decision.edits.add.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        traces,
        [
            "X-Connectord-Filter: rspamd; checked; action=\"no action\"; score=0.400/15.000",
            "X-Connectord-Filter: clamav; checked; action=\"no action\"",
        ]
    );
}

#[test]
fn each_action_has_its_disposition() {
    let policy = Policy::default();
    let later = Disposition::Later { wait: Some(Duration::from_secs(600)), postponed: true };
    for (action, disposition, is_spam) in [
        (Action::NoAction, INBOX, false),
        (Action::Greylist, INBOX, false),
        (Action::AddHeader, INBOX, true),
        (Action::RewriteSubject, INBOX, true),
        (Action::SoftReject, later, false),
        (Action::Reject, Disposition::Quarantine, true),
    ] {
        let decision = decide(&policy, &[spam(action, 0), clean()]);
        assert_eq!((decision.disposition, decision.spam), (disposition, is_spam), "{action:?}");
    }
}

#[test]
fn the_policy_says_where_spam_goes() {
    for (on_spam, disposition) in [
        (OnSpam::Mark, INBOX),
        (OnSpam::Folder("Junk".into()), folder("Junk")),
        (OnSpam::Quarantine, Disposition::Quarantine),
        (OnSpam::Discard, Disposition::Discard),
    ] {
        let policy = Policy { on_spam: on_spam.clone(), ..Policy::default() };
        assert_eq!(decide(&policy, &[spam(Action::AddHeader, 7_000)]).disposition, disposition);
        // What would be refused has its own say: the default keeps it.
        assert_eq!(decide(&policy, &[spam(Action::Reject, 20_000)]).disposition, Disposition::Quarantine);
        let policy = Policy { on_reject: on_spam, ..Policy::default() };
        assert_eq!(decide(&policy, &[spam(Action::Reject, 20_000)]).disposition, disposition);
    }
    let policy =
        Policy { on_spam: OnSpam::Folder("Junk".into()), subject_prefix: Some("[SPAM]".into()), ..Policy::default() };
    let decision = decide(&policy, &[spam(Action::AddHeader, 7_000)]);
    let has = |name: &str, value: &str| decision.edits.add.contains(&(name.into(), value.into()));
    assert!(has("X-Spam", "Yes") && has("X-Spam-Flag", "YES") && has("X-Connectord-Folder", "Junk"));
    assert_eq!(decision.edits.subject_prefix.as_deref(), Some("[SPAM]"));
    assert_eq!(decision.reason, "spam for rspamd with 7.000");
}

#[test]
fn a_virus_is_a_virus_whatever_else_is_said() {
    let policy = Policy::default();
    let others = [
        spam(Action::Reject, 30_000),
        rule(Ruling::Allow("ann".into())),
        rule(Ruling::Keep),
        rule(Ruling::Discard("size".into())),
        down("rspamd", Kind::Antispam, Why::Unavailable),
        spam(Action::SoftReject, 0),
    ];
    for other in others {
        let decision = decide(&policy, &[virus("Eicar"), other.clone()]);
        assert_eq!(decision.disposition, Disposition::Quarantine, "{other:?}");
        assert_eq!(decision.viruses, ["Eicar"]);
    }
    let notice = Policy { on_virus: OnVirus::Notice, ..Policy::default() };
    assert_eq!(decide(&notice, &[virus("Eicar")]).disposition, Disposition::Notice);
    let discard = Policy { on_virus: OnVirus::Discard, ..Policy::default() };
    assert_eq!(decide(&discard, &[virus("Eicar"), virus("Eicar")]).disposition, Disposition::Discard);
}

#[test]
fn nothing_is_delivered_unchecked_unless_somebody_wrote_so() {
    for why in [Why::Unavailable, Why::TimedOut, Why::Rubbish, Why::Refused, Why::Misconfigured] {
        for kind in [Kind::Antispam, Kind::Antivirus, Kind::Both, Kind::Rules] {
            let answers = [down("x", kind, why), clean()];
            assert_eq!(decide(&Policy::default(), &answers).disposition, RETRY, "{why:?} {kind:?}");
            let open = Policy { on_failure: OnFailure::Deliver, ..Policy::default() };
            let decision = decide(&open, &answers);
            assert_eq!(decision.disposition, INBOX);
            assert!(decision.edits.add.contains(&("X-Connectord-Unchecked".into(), "x: it says nothing".into())));
        }
    }
    // Not even as spam: the other filter may have more to say.
    assert_eq!(
        decide(
            &Policy::default(),
            &[spam(Action::AddHeader, 7_000), down("clamav", Kind::Antivirus, Why::Unavailable)]
        )
        .disposition,
        RETRY
    );
}

#[test]
fn a_filter_that_is_down_is_waited_for_and_a_message_that_breaks_it_is_parked() {
    let policy = Policy::default();
    let after =
        |why, failed| policy.decide(&[down("x", Kind::Antispam, why)], History { postponed: 0, failed }).disposition;
    assert_eq!(after(Why::Unavailable, 1_000_000), RETRY);
    assert_eq!(after(Why::Misconfigured, 1_000_000), RETRY);
    for why in [Why::TimedOut, Why::Rubbish, Why::Refused] {
        assert_eq!(after(why, 8), RETRY);
        assert_eq!(after(why, 9), Disposition::Park);
        assert_eq!(after(why, u32::MAX), Disposition::Park);
    }
}

#[test]
fn what_is_too_large_for_a_filter_does_not_circle() {
    let answers = [down("clamav", Kind::Antivirus, Why::TooLarge), spam(Action::NoAction, 0)];
    assert_eq!(decide(&Policy::default(), &answers).disposition, INBOX);
    let strict = Policy { on_too_large: OnTooLarge::Quarantine, ..Policy::default() };
    assert_eq!(decide(&strict, &answers).disposition, Disposition::Quarantine);
}

#[test]
fn a_soft_reject_puts_off_a_few_times_and_a_score_in_the_greylists_band_never() {
    let policy = Policy::default();
    let at = |policy: &Policy, action, postponed| policy.decide(&[spam(action, 0)], History { postponed, failed: 0 });
    for postponed in 0..3 {
        let doubtful = at(&policy, Action::Greylist, postponed);
        assert_eq!((doubtful.disposition, doubtful.spam), (INBOX, false));
        assert!(matches!(
            at(&policy, Action::SoftReject, postponed).disposition,
            Disposition::Later { postponed: true, .. }
        ));
    }
    let suspected = at(&policy, Action::SoftReject, 3);
    assert_eq!((suspected.disposition, suspected.spam), (INBOX, true));
    let park = Policy { exhausted: Exhausted::Park, ..Policy::default() };
    assert_eq!(at(&park, Action::SoftReject, u32::MAX).disposition, Disposition::Park);
    let never = Policy { postpone: false, ..Policy::default() };
    assert_eq!(at(&never, Action::SoftReject, 0).disposition, INBOX);
}

#[test]
fn rules_decide_over_antispam_filters() {
    let policy = Policy::default();
    let spam = spam(Action::Reject, 30_000);
    assert_eq!(decide(&policy, &[rule(Ruling::Allow("ann".into())), spam.clone()]).disposition, INBOX);
    assert_eq!(decide(&policy, &[rule(Ruling::Keep), spam.clone()]).disposition, INBOX);
    assert_eq!(decide(&policy, &[rule(Ruling::Folder("Lists".into()))]).disposition, folder("Lists"));
    assert_eq!(decide(&policy, &[rule(Ruling::Folder("Lists".into())), spam]).disposition, Disposition::Quarantine);
    assert_eq!(decide(&policy, &[rule(Ruling::Discard("x".into()))]).disposition, Disposition::Discard);
    let blocked = decide(&policy, &[rule(Ruling::Block("run.exe".into())), clean()]);
    assert_eq!((blocked.disposition, blocked.reason.as_str()), (Disposition::Quarantine, "blocked: run.exe"));
    // A ruling of what is no rules filter is not heard.
    let impostor =
        found("x", Kind::Antispam, Finding { ruling: Some(Ruling::Discard("x".into())), ..Finding::default() });
    assert_eq!(decide(&policy, &[impostor]).disposition, INBOX);
}

#[test]
fn what_a_rule_blocks_is_not_delivered_unchecked_but_may_be_kept_back() {
    let answers = [rule(Ruling::Block("run.exe".into())), down("clamav", Kind::Antivirus, Why::Unavailable)];
    let into = |on_reject: OnSpam| Policy { on_reject, ..Policy::default() };
    let later = Disposition::Later { wait: None, postponed: false };
    assert_eq!(decide(&into(OnSpam::Folder("Junk".into())), &answers).disposition, later);
    assert_eq!(decide(&into(OnSpam::Mark), &answers).disposition, later);
    assert_eq!(decide(&into(OnSpam::Quarantine), &answers).disposition, Disposition::Quarantine);
    let open = Policy { on_failure: OnFailure::Deliver, ..into(OnSpam::Folder("Junk".into())) };
    assert_eq!(decide(&open, &answers).disposition, folder("Junk"));
}

#[test]
fn switches_of_the_account_silence_filters() {
    let off = Policy { antispam: false, antivirus: false, ..Policy::default() };
    let answers = [spam(Action::Reject, 30_000), virus("Eicar"), down("x", Kind::Both, Why::Unavailable)];
    let decision = decide(&off, &answers);
    assert_eq!(decision.disposition, INBOX);
    assert!(decision.edits.add.is_empty());
    // Then X-Spam is the provider's, and stays; our own names are ours at all times.
    assert!(!decision.edits.remove.iter().any(|(name, _)| name == "X-Spam"));
    assert!(decision.edits.remove.iter().any(|(name, _)| name == "X-Connectord-Filter"));
}

#[test]
fn a_filter_for_both_is_heard_for_what_is_wanted() {
    let both = |finding| [found("rspamd", Kind::Both, finding)];
    let spam = Finding { action: Action::Reject, ..Finding::default() };
    let infected = Finding { viruses: vec!["Eicar".into()], ..Finding::default() };
    let antivirus = Policy { antispam: false, ..Policy::default() };
    assert_eq!(decide(&antivirus, &both(spam.clone())).disposition, INBOX);
    assert_eq!(decide(&antivirus, &both(infected)).disposition, Disposition::Quarantine);
    let antispam = Policy { antivirus: false, ..Policy::default() };
    assert_eq!(decide(&antispam, &both(spam)).disposition, Disposition::Quarantine);
}

#[test]
fn own_thresholds_replace_the_filter_s() {
    let policy =
        Policy { thresholds: Thresholds { mark_at: Some(5_000), reject_at: Some(12_000) }, ..Policy::default() };
    let of = |action, score| {
        let decision = decide(&policy, &[spam(action, score)]);
        (decision.spam, decision.disposition == Disposition::Quarantine)
    };
    assert_eq!(of(Action::NoAction, 4_999), (false, false));
    assert_eq!(of(Action::NoAction, 5_000), (true, false));
    assert_eq!(of(Action::AddHeader, 4_000), (false, false));
    assert_eq!(of(Action::NoAction, 12_000), (true, true));
    assert_eq!(of(Action::Reject, 11_999), (true, false));
    assert_eq!(of(Action::Reject, 1_000), (false, false));
    assert!(!decide(&policy, &[spam(Action::SoftReject, 6_000)]).spam);
}

fn applied(message: &str, decision: &Decision) -> String {
    let body: Arc<dyn Body> = Arc::new(Bytes::copy_from_slice(message.as_bytes()));
    let (front, body) = decision.edits.apply(Head::of(message.as_bytes()), body);
    let mut octets = vec![0; usize::try_from(body.size_octets()).unwrap()];
    let mut at = 0;
    while at < octets.len() {
        at += body.read_at(at as u64, &mut octets[at..]).unwrap();
    }
    String::from_utf8([&front[..], &octets[..]].concat()).unwrap()
}

#[test]
fn forged_marks_are_gone_and_ours_are_there() {
    let message = "X-Spam: No\r\nx-connectord-filter: rspamd; checked; action=\"no action\"\r\n\tfolded\r\nSubject: hello\r\n\
                   X-Spam-Score: -100\r\nX-Connectord-Account: a@b\r\n\r\nX-Spam: in the body\r\n";
    let policy = Policy { subject_prefix: Some("[SPAM]".into()), ..Policy::default() };
    let symbol = |name: &str, milli_score| Symbol { name: name.into(), milli_score };
    let symbols = vec![symbol("BAYES_SPAM", 5_100), symbol("MIME_TRACE", 0)];
    let finding = Finding { action: Action::AddHeader, milli_score: Some(7_001), symbols, ..Finding::default() };
    let decision = decide(&policy, &[found("rspamd", Kind::Antispam, finding)]);
    assert_eq!(
        applied(message, &decision),
        "X-Connectord-Filter: rspamd; checked; action=\"add header\"; score=7.001;\r\n\tsymbols=BAYES_SPAM(5.100), MIME_TRACE\r\n\
         X-Spam: Yes\r\nX-Spam-Flag: YES\r\nSubject: [SPAM] hello\r\nX-Connectord-Account: a@b\r\n\r\nX-Spam: in the body\r\n"
    );
}

#[test]
fn subjects_are_prefixed_once_whatever_they_look_like() {
    let policy = Policy { subject_prefix: Some("[SPAM]".into()), ..Policy::default() };
    let decision = decide(&policy, &[spam(Action::AddHeader, 7_000)]);
    let subject = |message: &str| {
        let applied = applied(message, &decision);
        let head = Head::of(applied.as_bytes());
        assert_eq!(
            head.fields().filter(|field| field.is("Subject")).count(),
            message.matches("ubject:").count().max(1)
        );
        let field = head.fields().find(|field| field.is("Subject")).unwrap();
        assert!(field.octets.ends_with(b"\n"), "{applied:?}");
        String::from_utf8(field.unfolded()).unwrap()
    };
    assert_eq!(subject("Subject: a\r\n\r\n"), "[SPAM] a");
    assert_eq!(subject("Subject: [SPAM] a\r\n\r\n"), "[SPAM] a");
    assert_eq!(subject("subject:a\r\n b\r\n\r\n"), "[SPAM] a b");
    assert_eq!(subject("Subject:\r\n\r\n"), "[SPAM]");
    assert_eq!(subject("Subject:  \nTo: x\n\n"), "[SPAM]");
    assert_eq!(subject("To: x\r\n\r\n"), "[SPAM]");
    assert_eq!(subject("Subject: a\r\nSubject: b\r\n\r\n"), "[SPAM] a");
    let policy = Policy { subject_prefix: Some("Müll:".into()), ..Policy::default() };
    let decision = decide(&policy, &[spam(Action::AddHeader, 7_000)]);
    assert!(applied("Subject: a\r\n\r\n", &decision).contains("Subject: =?utf-8?B?TcO8bGw6?= a\r\n"));
}

#[test]
fn a_filter_s_header_changes_are_made_but_for_those_that_others_rely_on() {
    let add = |name: &str, value: &str| HeaderChange::Add { name: name.into(), value: value.into() };
    let remove = |name: &str, nth| HeaderChange::Remove { name: name.into(), nth };
    let headers = vec![
        add("X-Spamd-Result", "default: False\r\nBcc: evil@example.org"),
        add("Bad Name", "x"),
        add("X-Connectord-Account", "a@b"),
        remove("X-Old", 2),
        remove("Received", 0),
    ];
    let finding = Finding { headers, ..Finding::default() };
    let decision = decide(&Policy::default(), &[found("rspamd", Kind::Antispam, finding)]);
    let message = "Received: a\r\nX-Old: 1\r\nX-Old: 2\r\nX-Old: 3\r\n\r\nbody";
    assert_eq!(
        applied(message, &decision),
        "X-Connectord-Filter: rspamd; checked; action=\"no action\"\r\n\
         X-Spamd-Result: default: False Bcc: evil@example.org\r\nReceived: a\r\nX-Old: 1\r\nX-Old: 3\r\n\r\nbody"
    );
    // The rewritten subject is the filter's where it gives one.
    let finding =
        Finding { action: Action::RewriteSubject, subject: Some("*** SPAM *** äh".into()), ..Finding::default() };
    let decision = decide(&Policy::default(), &[found("rspamd", Kind::Antispam, finding)]);
    assert!(applied("Subject: x\r\n\r\n", &decision).contains("Subject: =?utf-8?B?KioqIFNQQU0gKioqIMOkaA==?=\r\n\r\n"));
}

#[test]
fn fields_are_counted_from_either_end_and_a_new_subject_gets_the_prefix() {
    let headers = vec![
        HeaderChange::Remove { name: "X-Old".into(), nth: -1 },
        HeaderChange::Remove { name: "X-Old".into(), nth: -3 },
        HeaderChange::Remove { name: "Subject".into(), nth: 1 },
        HeaderChange::Add { name: "Subject".into(), value: "new".into() },
    ];
    let finding = Finding { action: Action::AddHeader, headers, ..Finding::default() };
    let policy = Policy { subject_prefix: Some("[SPAM]".into()), ..Policy::default() };
    let decision = policy.decide(&[found("command", Kind::Antispam, finding)], History::default());
    let applied = applied("X-Old: 1\r\nX-Old: 2\r\nSubject: x\r\nX-Old: 3\r\n\r\nbody", &decision);
    assert!(applied.ends_with("\r\nX-Old: 2\r\n\r\nbody"), "{applied}");
    assert_eq!(applied.matches("Subject:").count(), 1);
    assert!(applied.contains("Subject: [SPAM] new\r\n"), "{applied}");
}

#[test]
fn a_body_that_nothing_changes_is_the_same_body() {
    let body: Arc<dyn Body> = Arc::new(Bytes::from_static(b"Subject: x\r\n\r\nbody"));
    let decision = decide(&Policy::default(), &[clean()]);
    let (_, after) = decision.edits.apply(Head::of(b"Subject: x\r\n\r\n"), Arc::clone(&body));
    assert!(Arc::ptr_eq(&body, &after));
}

mod octets {
    use connectord_filter::fuzzing;
    use proptest::prelude::*;

    fn words() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("Subject: "),
            Just("X-Gone: "),
            Just("Received: "),
            Just("\r\n"),
            Just("\n"),
            Just("\r\n\t"),
            Just("\r\n\r\n"),
            Just("x"),
            Just(":"),
            Just("From "),
            Just("[SPAM] "),
            Just("Authentication-Results: "),
            Just("received-spf :"),
            Just("\u{fc}"),
            Just("--b"),
            Just("--b--"),
            Just("--c\r\n"),
            Just("Content-Type: multipart/mixed; boundary=b\r\n"),
            Just("Content-Type: multipart/mixed; boundary=\"c\"\r\n"),
            Just("Content-Type: message/rfc822\r\n"),
            Just("Content-Transfer-Encoding: base64\r\n"),
            Just("Content-Disposition: attachment; filename=\"a.exe\"\r\n"),
            Just("UEsDBBQAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAYQ==\r\n"),
            Just("PK\u{3}\u{4}"),
            Just("=4D=5A=\r\n"),
            Just("PK\u{5}\u{6}"),
            Just("filename*0*=utf-8''%41"),
            Just("=?utf-8?Q?a=2Ejs?="),
        ];
        proptest::collection::vec(word, 0..80).prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_message_can_be_edited_and_looked_at(data in prop_oneof![words(), proptest::collection::vec(any::<u8>(), 0..400)]) {
            fuzzing::edits(&data);
            fuzzing::attachments(&data);
        }
    }
}

/// A message whose line ends were shortened.
struct Plain(Bytes);

impl Body for Plain {
    fn size_octets(&self) -> u64 {
        self.0.size_octets()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn line_feeds(&self) -> Option<u64> {
        Some(self.0.iter().filter(|octet| **octet == b'\n').count() as u64)
    }
}

#[test]
fn a_changed_message_with_shortened_line_ends_has_them_all_shortened_and_counts_them() {
    let message = b"X-Spam: No\nSubject: hi\n there\n\nbody\n";
    let edits = connectord_filter::Edits {
        remove: vec![("X-Spam".into(), 0)],
        subject_prefix: Some(format!("[{}]", "ü".repeat(60))),
        ..connectord_filter::Edits::default()
    };
    let body: Arc<dyn Body> = Arc::new(Plain(Bytes::from_static(message)));
    let (_, edited) = edits.apply(Head::of(message), body);
    let mut octets = vec![0; usize::try_from(edited.size_octets()).unwrap()];
    let mut at = 0;
    while at < octets.len() {
        at += edited.read_at(at as u64, &mut octets[at..]).unwrap();
    }
    assert!(!octets.contains(&b'\r'), "{}", octets.escape_ascii());
    let count = octets.iter().filter(|octet| **octet == b'\n').count();
    assert!(count > 5);
    assert_eq!(edited.line_feeds(), Some(count as u64));
}

#[test]
fn a_message_that_a_person_says_is_no_spam_loses_the_marks_and_keeps_its_trace() {
    let policy = Policy { on_reject: OnSpam::Quarantine, subject_prefix: Some("[SPAM]".into()), ..Policy::default() };
    let rewritten = Finding {
        action: Action::Reject,
        milli_score: Some(15_000),
        headers: vec![
            HeaderChange::Remove { name: "subject".into(), nth: 0 },
            HeaderChange::Add { name: "Subject".into(), value: "*** offer".into() },
            HeaderChange::Add { name: "X-Spamd-Bar".into(), value: "+++".into() },
            HeaderChange::Add { name: "X-Other".into(), value: "1".into() },
        ],
        ..Finding::default()
    };
    let decision = decide(&policy, &[found("rspamd", Kind::Antispam, rewritten)]);
    let message = "X-Spam: forged\r\nSubject: offer\r\n\r\nbody\r\n";
    let decision = Decision { edits: decision.edits.without_marks(), ..decision };
    let applied = applied(message, &decision);
    assert!(applied.contains("X-Connectord-Filter: rspamd;") && applied.contains("X-Other: 1\r\n"), "{applied}");
    assert!(applied.ends_with("Subject: offer\r\n\r\nbody\r\n") && !applied.contains("X-Spam"), "{applied}");
}

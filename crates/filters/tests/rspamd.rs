//! The real Rspamd.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use common::{HAM, PATIENCE, found, gtube, message, passes_the_battery, survives_its_server, tcp, unchecked};
use connectord_filter::{Action, Filter, HeaderChange, Why};
use connectord_filters::rspamd::{Controller, ControllerOptions, Learn, Learned, Options, Rspamd};
use connectord_testkit::Rspamd as Server;
use connectord_wire::Address;

/// What the site's own rules do: a subject decides what comes back.
const LUA: &str = r#"
local function subject(task, what) return (task:get_header('Subject') or ''):find(what, 1, true) end
rspamd_config:register_symbol({ name = 'TEST_ACTIONS', type = 'postfilter', priority = 10, callback = function(task)
  for _, action in ipairs({'greylist', 'soft reject', 'rewrite subject', 'reject', 'add header'}) do
    if subject(task, 'test ' .. action) then
      task:set_pre_result(action, 'because of ' .. action)
      if action == 'rewrite subject' then task:set_metric_subject('a new subject') end
    end
  end
  if subject(task, 'test headers') then
    task:set_milter_reply({
      add_headers = { ['X-One'] = 'one', ['X-Two'] = { { value = 'second', order = 1 }, { value = 'first', order = 0 } } },
      remove_headers = { ['X-All'] = 0, ['X-Last'] = -1 },
    })
  end
end })
"#;

/// One for all tests that leave it as it is; it ends with the test process.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let files = [("../rspamd.local.lua", LUA), ("settings.conf", SETTINGS)];
    Server::start(None, &[&files[..], &Server::BAYES].concat())
});

/// Settings that apply to whoever asks for them by their id.
const SETTINGS: &str = "strict { id = \"strict\"; apply { actions { reject = 3.0; } } }\n";

fn rspamd(address: Address) -> Rspamd {
    Rspamd::new("rspamd".into(), Options::new(address)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spam_is_found_and_a_clean_message_is_clean_over_both_sockets() {
    for address in [tcp(SERVER.address()), Address::Unix(SERVER.socket())] {
        let rspamd = rspamd(address);
        let finding = found(&rspamd, gtube()).await;
        assert_eq!((finding.action, finding.text.as_deref()), (Action::Reject, Some("Gtube pattern")));
        let finding = found(&rspamd, HAM).await;
        assert_eq!(finding.action, Action::NoAction, "{finding:?}");
        assert!(!finding.symbols.is_empty() && finding.milli_required == Some(15_000), "{finding:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_client_is_not_held_against_a_message_and_is_not_this_machine() {
    let finding = found(&rspamd(tcp(SERVER.address())), HAM).await;
    let names: Vec<_> = finding.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    assert!(!names.contains(&"HFILTER_HOSTNAME_UNKNOWN"), "{names:?}");
    assert!(SERVER.log().contains("ip: unknown") || !SERVER.log().contains("ip: 127.0.0.1"), "{}", SERVER.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_comes_with_its_text() {
    let rspamd = rspamd(tcp(SERVER.address()));
    for action in ["greylist", "soft reject", "rewrite subject", "reject", "add header"] {
        let finding = found(&rspamd, HAM.replace("lunch", &format!("test {action}"))).await;
        assert_eq!(finding.action.name(), action, "{finding:?}");
        assert_eq!(finding.text, Some(format!("because of {action}")));
        let subject = (action == "rewrite subject").then_some("a new subject");
        assert_eq!(finding.subject.as_deref(), subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_changes_come_in_their_order() {
    let finding = found(&rspamd(tcp(SERVER.address())), HAM.replace("lunch", "test headers")).await;
    let add = |name: &str, value: &str| HeaderChange::Add { name: name.into(), value: value.into() };
    let remove = |name: &str, nth| HeaderChange::Remove { name: name.into(), nth };
    for change in [remove("X-All", 0), remove("X-Last", -1), add("X-One", "one")] {
        assert!(finding.headers.contains(&change), "{:?}", finding.headers);
    }
    let place = |value: &str| finding.headers.iter().position(|change| *change == add("X-Two", value)).unwrap();
    assert!(place("first") < place("second"), "{:?}", finding.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_that_it_is_rspamd_and_finds_gtube() {
    let probe = rspamd(tcp(SERVER.address())).probe(Instant::now() + PATIENCE).await.unwrap();
    assert!(probe.version.starts_with("rspamd/"), "{probe:?}");
    assert_eq!(probe.found_test_sample, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_an_id_apply_to_whoever_names_it_and_not_to_others() {
    for (id, required) in [(Some("strict"), 3_000), (None, 15_000), (Some("unknown"), 15_000)] {
        let mut options = Options::new(tcp(SERVER.address()));
        options.settings_id = id.map(str::to_owned);
        let finding = found(&Rspamd::new("rspamd".into(), options).unwrap(), HAM).await;
        assert_eq!(finding.milli_required, Some(required), "{id:?}: {finding:?}");
    }
}

/// A worker that wants a password: the controller's looks at mail, too, for whoever has its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wants_a_password_gets_it_and_a_wrong_one_is_a_mistake_of_the_configuration() {
    let server = Server::start(None, &[]);
    let with = |password: &str| {
        let mut options = Options::new(tcp(server.controller()));
        options.password = Some(password.into());
        Rspamd::new("rspamd".into(), options).unwrap()
    };
    assert_eq!(found(&with("secret"), gtube()).await.action, Action::Reject);
    let wrong = unchecked(with("wrong").check(&message(HAM)).await);
    assert!(wrong.why == Why::Misconfigured && wrong.text.contains("password"), "{wrong}");
    assert!(!wrong.text.contains("wrong"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_is_no_worker_and_what_it_does_not_know_is_a_mistake_of_the_configuration() {
    let trouble = rspamd(tcp(SERVER.controller())).probe(Instant::now() + PATIENCE).await.unwrap_err();
    assert_eq!(trouble.why, Why::Misconfigured, "{trouble}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ham_is_learned_once_and_only_with_the_password() {
    let controller = |password: &str| {
        let mut options = ControllerOptions::new(tcp(SERVER.controller()));
        options.password = Some(password.into());
        Controller::new(options).unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    let words = "many different words make tokens enough for bayes to learn from such as apples oranges pears plums";
    let ham = Arc::new(Bytes::from(HAM.replace("as every Monday", words)));
    let wrong = controller("wrong").learn(Learn::Ham, ham.clone(), deadline).await.unwrap_err();
    assert_eq!(wrong.why, Why::Misconfigured, "{wrong}");
    assert_eq!(controller("secret").learn(Learn::Ham, ham.clone(), deadline).await, Ok(Learned::Now));
    assert_eq!(controller("secret").learn(Learn::Ham, ham, deadline).await, Ok(Learned::Before));
    let spam = Arc::new(Bytes::from(HAM.replace("as every Monday", &words.replace(' ', " cheap "))));
    assert_eq!(controller("secret").learn(Learn::Spam, spam, deadline).await, Ok(Learned::Now));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_battery() {
    passes_the_battery(&rspamd(tcp(SERVER.address()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rspamd_that_goes_down_comes_back_and_hangs_lets_nothing_through() {
    let mut server = Server::start(None, &[]);
    let rspamd = Arc::new(rspamd(tcp(server.address())));
    survives_its_server(rspamd, &mut server).await;
}

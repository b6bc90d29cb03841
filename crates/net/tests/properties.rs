//! What holds for any octets.

use proptest::prelude::*;

proptest! {
    #[test]
    fn any_proxy_answer_is_judged_alike(tail in proptest::collection::vec(any::<u8>(), 0..200), code in 100u16..600) {
        connectord_net::fuzzing::proxy_answer(&tail);
        let mut answer = format!("HTTP/1.1 {code} Text\r\nVia: proxy\r\n\r\n").into_bytes();
        answer.extend_from_slice(&tail);
        connectord_net::fuzzing::proxy_answer(&answer);
    }

    #[test]
    fn any_certificate_and_pin_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        connectord_net::fuzzing::certificate(&data);
    }
}

//! What holds for any octets.

use proptest::prelude::*;

proptest! {
    #[test]
    fn any_proxy_answer_is_judged_alike(
        start in any::<[u8; 2]>(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        code in 100u16..600,
    ) {
        let http = format!("HTTP/1.1 {code} Text\r\nVia: proxy\r\n\r\n").into_bytes();
        for head in [&b""[..], &http, b"\x05\x00\x05\x00\x00", b"\x05\x02\x01\x00\x05\x00\x00\x01"] {
            connectord_net::fuzzing::proxy_answer(&[&start[..], head, &tail].concat());
        }
    }

    #[test]
    fn any_certificate_and_pin_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        connectord_net::fuzzing::certificate(&data);
    }
}

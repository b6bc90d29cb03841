//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use crate::{Pin, certificates_from_pem, proxy, tls};

/// A proxy's answer is judged alike however often it is looked at while it arrives, and never longer than it is.
pub fn proxy_answer(data: &[u8]) {
    let whole = proxy::head(data);
    if let Ok(Some(length)) = whole {
        assert!(length <= data.len());
        assert_eq!(proxy::head(&data[..length]), whole);
        for end in 0..length {
            assert_eq!(proxy::head(&data[..end]), Ok(None));
        }
    }
}

/// Certificates and pins from anywhere are read or refused.
pub fn certificate(data: &[u8]) {
    let _ = tls::end_point_hash(data);
    let _ = tls::Fingerprints::of(&data.into());
    let _ = certificates_from_pem(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(pin) = text.parse::<Pin>()
    {
        assert_eq!(pin.to_string().parse(), Ok(pin));
    }
}

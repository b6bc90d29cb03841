//! Connects with TLS and says what came of it: `cargo run --example connect -- imap.example.org:993 [PIN]`.

use connectord_net::{Connector, Error, Route};
use connectord_wire::Security;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().ok_or("which host:port?")?.parse()?;
    let mut route = Route::new(endpoint, Security::Tls);
    for pin in arguments {
        route.tls.pins.push(pin.parse()?);
    }
    match Connector::new().connect(&route).await {
        Ok(stream) => println!("{:#?}", stream.tls()),
        Err(Error::Tls { problem, .. }) => {
            println!("{problem}");
            println!("hint: {}", problem.hint().unwrap_or_default());
        }
        Err(error) => println!("{error}"),
    }
    Ok(())
}

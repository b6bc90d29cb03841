//! Letters that are pleasant to read: what a small shop and the people who work there get.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Message;
use crate::date::message_date;

/// Who is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desk {
    /// The shop: orders, questions, suppliers.
    Shop,
    /// A person: friends, family, the bicycle club.
    Person,
    /// Those who help when something does not work.
    Support,
}

/// A letter, and what a list of mail shows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The message, with LF line ends; 8-bit text is UTF-8 and declared.
    pub message: Message,
    /// Its Message-ID, with the angle brackets; another for each number and address.
    pub message_id: String,
    /// Display name of the sender.
    pub from: &'static str,
    /// Its subject, decoded.
    pub subject: String,
}

/// The `n`th letter to somebody, from 0; their texts come round again, with other numbers and Message-IDs.
///
/// Every fifth has an attachment of some kB. The same arguments give the same letter.
///
/// ```
/// use connectord_sample::letters::{Desk, letter};
///
/// let letter = letter(Desk::Person, 0, "anna@mail.example", std::time::UNIX_EPOCH);
/// assert_eq!((letter.from, letter.subject.as_str()), ("Grandma Rosa", "Apple cake on Sunday?"));
/// assert!(letter.message.octets.starts_with(b"Return-Path: <rosa@family.example>\n"));
/// ```
pub fn letter(desk: Desk, n: usize, to: &str, at: SystemTime) -> Letter {
    let texts = match desk {
        Desk::Shop => SHOP,
        Desk::Person => PERSON,
        Desk::Support => SUPPORT,
    };
    let text = &texts[n % texts.len()];
    let number = (2001 + n).to_string();
    let fill = |text: &str| text.replace("{n}", &number);
    let subject = fill(text.subject);
    let message_id = format!("<letter.{n}.{}@post.example>", to.replace('@', "."));
    let mut head = format!(
        "Return-Path: <{sender}>\n\
         Received: from post.example (post.example [192.0.2.25])\n\
         \tby mx.provider.example with ESMTPS id {n:08X}\n\
         \tfor <{to}>; {date}\n\
         Message-ID: {message_id}\n\
         Date: {date}\n\
         From: {from} <{sender}>\n\
         To: {to}\n\
         Subject: {shown}\n\
         MIME-Version: 1.0\n",
        sender = text.sender,
        from = encoded(text.from),
        date = message_date(at),
        shown = encoded(&subject),
    );
    let body = format!("{}\n", fill(text.body));
    if n % 5 == 4 {
        attach(&mut head, &body, n);
    } else {
        head += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n";
        head += &body;
    }
    let message = Message::new(head).received(at);
    Letter { message, message_id, from: text.from, subject }
}

/// A header's text: as it is, or as one encoded word where it is not ASCII (RFC 2047); texts here are short enough for one.
fn encoded(text: &str) -> String {
    if text.is_ascii() { text.to_owned() } else { format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(text)) }
}

fn attach(out: &mut String, body: &str, n: usize) {
    *out += &format!(
        "Content-Type: multipart/mixed; boundary=\"=_letter\"\n\n\
         --=_letter\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{body}\n\
         --=_letter\nContent-Type: image/x-portable-graymap\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"picture-{n}.pgm\"\n\n"
    );
    for line in picture(n).chunks(57) {
        *out += &BASE64_STANDARD.encode(line);
        out.push('\n');
    }
    *out += "--=_letter--\n";
}

/// A picture that opens in any viewer: waves in grey, 64 by 64.
fn picture(n: usize) -> Vec<u8> {
    let mut picture = b"P5 64 64 255\n".to_vec();
    for y in 0..64 {
        picture.extend((0..64).map(|x| u8::try_from((x * (n % 7 + 1) + y * y / 4) % 256).unwrap_or(u8::MAX)));
    }
    picture
}

struct Text {
    from: &'static str,
    sender: &'static str,
    subject: &'static str,
    body: &'static str,
}

const fn text(from: &'static str, sender: &'static str, subject: &'static str, body: &'static str) -> Text {
    Text { from, sender, subject, body }
}

const SHOP: &[Text] = &[
    text(
        "Mia Novak",
        "mia@novak.example",
        "Order {n}: two blue mugs",
        "Hello,\n\ntwo of the blue mugs, with the small handle.\n\nThank you\nMia",
    ),
    text(
        "Harbour Pottery",
        "sales@pottery.example",
        "The new glazes are here",
        "Dear customers,\n\nsea green, oat and plum. Samples go out on Monday.\n\nHarbour Pottery",
    ),
    text(
        "Tomás Ferreira",
        "tomas@ferreira.example",
        "Did my parcel leave yet?",
        "Hello,\n\nnumber {n}, the teapot. My mother's birthday is on Friday.\n\nTomás",
    ),
    text(
        "Parcel Service",
        "news@parcels.example",
        "Parcel {n} was delivered",
        "Your parcel {n} was handed over today. The neighbour signed for it.",
    ),
    text(
        "Lena Brandt",
        "lena@brandt.example",
        "A photo of the shelf, as promised",
        "Dear shop,\n\nit looks lovely. The picture is attached.\n\nLena",
    ),
    text(
        "City Library",
        "events@library.example",
        "Shall we do the Christmas market again?",
        "Dear all,\n\nlast year was a pleasure. The same stand, by the fountain?\n\nThe library",
    ),
    text(
        "Olaf Lindqvist",
        "olaf@lindqvist.example",
        "Order {n}: a lamp and twelve candles",
        "Good morning,\n\nthe brass lamp and a box of candles, as a gift.\n\nOlaf",
    ),
    text(
        "Zoë Martin",
        "zoe@martin.example",
        "Merci beaucoup !",
        "Le vase est arrivé, il est magnifique. À bientôt !\n\nZoë",
    ),
    text(
        "Paper & Twine",
        "office@twine.example",
        "Invoice {n}",
        "Please find our invoice {n} for wrapping paper. Due in 30 days.",
    ),
    text(
        "Jonas Weber",
        "jonas@weber.example",
        "Grüße aus Köln",
        "Guten Tag,\n\nhaben Sie die Schüssel auch in größer?\n\nViele Grüße\nJonas Weber",
    ),
    text(
        "Priya Shah",
        "priya@shah.example",
        "Order {n}: the last green bowl",
        "Hi,\n\nif it is still there, I would love to have it.\n\nPriya",
    ),
    text(
        "The Neighbour",
        "kiosk@corner.example",
        "Your cat is in our window again",
        "She is asleep between the newspapers. No hurry.",
    ),
];

const PERSON: &[Text] = &[
    text(
        "Grandma Rosa",
        "rosa@family.example",
        "Apple cake on Sunday?",
        "Dear Anna,\n\ncome at three, and bring the children.\n\nGrandma",
    ),
    text(
        "Bicycle Club",
        "ride@bicycles.example",
        "Saturday: along the river to the mill",
        "Nine o'clock at the bridge, 48 km, coffee at half way. Tyres pumped, please.",
    ),
    text("Ben", "ben@friends.example", "I found your umbrella", "It was behind my piano. How?\n\nBen"),
    text(
        "Jürgen Müller",
        "juergen@mueller.example",
        "Fotos vom Müggelsee",
        "Liebe Anna,\n\nschöne Grüße vom See, das Wasser ist noch warm.\n\nJürgen",
    ),
    text(
        "Carla",
        "carla@friends.example",
        "The puppy, day one",
        "She sleeps in the shoe box. See the picture.\n\nCarla",
    ),
    text(
        "School Orchestra",
        "music@school.example",
        "Rehearsal moved to Thursday",
        "Room 12, half past six. Second violins: page 4.",
    ),
    text(
        "City Library",
        "desk@library.example",
        "Your book is ready",
        "«The Summer Book» waits for you until the 14th.",
    ),
    text(
        "Naïma",
        "naima@friends.example",
        "Recipe, finally",
        "500 g flour, 2 eggs, a pinch of salt, and patience. Crêpes!\n\nNaïma",
    ),
    text("Uncle Piet", "piet@family.example", "Chess: knight to f6", "Your move. I have time until Christmas.\n\nPiet"),
    text(
        "Garden Association",
        "office@gardens.example",
        "Seeds, seedlings, and who has a wheelbarrow",
        "Saturday from ten. Tomatoes in nine kinds, see the list.",
    ),
    text(
        "Ida",
        "ida@friends.example",
        "Train at 8:14 or at 9:02?",
        "I would take the later one. There is a window seat.",
    ),
    text(
        "Weather Club",
        "sky@weather.example",
        "Northern lights tonight, perhaps",
        "Look north after eleven, away from the lamps.",
    ),
];

const SUPPORT: &[Text] = &[
    text(
        "Emil Sørensen",
        "emil@sorensen.example",
        "The lid does not fit",
        "Hello,\n\nlid and pot are both beautiful, but not for each other. Order {n}.\n\nEmil",
    ),
    text(
        "Ruth Adler",
        "ruth@adler.example",
        "Thank you, it works now",
        "The second lid fits. You are very kind.\n\nRuth",
    ),
    text(
        "Sam Okoye",
        "sam@okoye.example",
        "Can I change the address of order {n}?",
        "We moved to number 12, the blue door.\n\nSam",
    ),
    text(
        "Yuki Tanaka",
        "yuki@tanaka.example",
        "Dishwasher, yes or no?",
        "The cup with the gold rim. I would rather ask first.\n\nYuki",
    ),
    text(
        "Marta Kowalska",
        "marta@kowalska.example",
        "Photo of the scratch",
        "It is small, but it is there. Picture attached.\n\nMarta",
    ),
    text(
        "Finn",
        "finn@mail.example",
        "My voucher says it is from 1999",
        "It was in a drawer. Is it still good?\n\nFinn",
    ),
    text(
        "Chloë Dubois",
        "chloe@dubois.example",
        "Où est la notice ?",
        "Bonjour,\n\nla lampe est là, la notice non.\n\nChloë",
    ),
    text(
        "Workshop",
        "bench@workshop.example",
        "Repair {n} is ready",
        "The clock runs again. It wanted oil and a kind word.",
    ),
    text(
        "Ada Byron",
        "ada@byron.example",
        "A question about returns",
        "Fourteen days from the order, or from the parcel?\n\nAda",
    ),
    text("Pavel Dvořák", "pavel@dvorak.example", "Děkuji!", "The replacement came this morning. All is well.\n\nPavel"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn every_letter_has_its_own_message_id_and_lines_that_any_server_takes() {
        let mut seen = BTreeSet::new();
        for desk in [Desk::Shop, Desk::Person, Desk::Support] {
            for n in 0..40 {
                let to = format!("{desk:?}@mail.example");
                let letter = letter(desk, n, &to, UNIX_EPOCH);
                let text = String::from_utf8(letter.message.octets.clone()).unwrap();
                let (head, body) = text.split_once("\n\n").unwrap();
                assert!(head.is_ascii() && head.contains(&letter.message_id), "{head}");
                assert!(text.lines().all(|line| line.len() <= 998) && !body.is_empty() && text.ends_with('\n'));
                assert!(seen.insert(letter.message_id));
            }
        }
    }

    #[test]
    fn a_subject_that_is_not_ascii_is_an_encoded_word() {
        let letter = letter(Desk::Shop, 9, "info@shop.example", UNIX_EPOCH);
        assert_eq!(letter.subject, "Grüße aus Köln");
        let text = String::from_utf8(letter.message.octets).unwrap();
        assert!(text.contains("\nSubject: =?UTF-8?B?R3LDvMOfZSBhdXMgS8O2bG4=?=\n"), "{text}");
    }
}

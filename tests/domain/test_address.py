"""How addresses are compared: SEMANTICS, Matching."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.address import MAX_LENGTH, canonical, outgoing, printable
from portal.errors import InvalidAddressError

# Valid, every one, and a trap for a shell, a spreadsheet or an option parser.
HOSTILE = [
    "`id`@example.org",
    "$HOME@example.org",
    "/etc/passwd@example.org",
    "-rf@example.org",
    "=cmd|'/C'!A0@example.org",
    "a|b@example.org",
    "#comment@example.org",
    "%s@example.org",
]

parts = st.text(min_size=1, max_size=12)
look_alikes = st.builds("{}@{}.{}".format, parts, parts, st.sampled_from(["org", "ÄÖ", "xn--4ca", "ΕΛ", "Ελ", "中国"]))


def is_address(text: str) -> bool:
    try:
        canonical(text)
    except InvalidAddressError:
        return False
    return True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice@Example.ORG", "alice@example.org"),
        ("  alice@example.org\t", "alice@example.org"),
        ("JOSÉ@example.org", "jose\N{COMBINING ACUTE ACCENT}@example.org"),
        ("alice@EXÄMPLE.org", "alice@xn--exmple-cua.org"),
        ("alice@eXämple.Org", "alice@XN--EXMPLE-CUA.ORG"),
        ("alice@exa\N{COMBINING DIAERESIS}mple.org", "alice@exämple.org"),
        ("alice@ΕΛΛΆΔΑ.gr", "alice@ελλάδα.gr"),
        ("alice@例え。jp", "alice@例え.jp"),
        ("groß@GROẞ.org", "GROẞ@groß.org"),
        ("\N{KELVIN SIGN}elvin@example.org", "kelvin@example.org"),
        ("\u03aa\N{COMBINING ACUTE ACCENT}@example.org", "\u0390@example.org"),  # one letter in lower case alone
    ],
)
def test_spellings_of_one_mailbox_are_one_address(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("groß@example.org", "gross@example.org"),
        ("alice@groß.org", "alice@gross.org"),
        ("alice+lists@example.org", "alice@example.org"),
        ("a.lice@example.org", "alice@example.org"),
        ("\N{LATIN SMALL LETTER DOTLESS I}an@example.org", "ian@example.org"),
        ("ﬁona@example.org", "fiona@example.org"),
    ],
)
def test_mailboxes_that_merely_look_alike_are_two(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (" Alice@Example.org", "Alice@Example.org"),
        ("José@EXÄMPLE.org", "José@xn--exmple-cua.org"),
    ],
)
def test_an_address_goes_out_with_its_local_part_as_typed_and_its_domain_in_ascii(typed: str, sent: str) -> None:
    assert outgoing(typed) == sent


@pytest.mark.parametrize("address", HOSTILE)
def test_a_hostile_address_is_an_address_and_kept_byte_for_byte(address: str) -> None:
    assert canonical(address) == address.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.org",
        "alice@",
        "alice@@example.org",
        "alice@example.org@example.com",
        "alice smith@example.org",
        "alice@exam ple.org",
        "alice,bob@example.org",
        "<alice@example.org>",
        "alice@example.org\nbob@example.org",
        "alice\r@example.org",
        "al\0ice@example.org",
        "al\x1b[31mice@example.org",
        "al\x85ice@example.org",
        "al\u2028ice@example.org",
        "al\u00a0ice@example.org",
        "al\udc80ice@example.org",
        "alice@\ud800.org",
        "alice@☃.net",
        "alice@-ä.org",
        "alice@ä..org",
        "alice@exa\N{FULLWIDTH SEMICOLON}mple.org",
        '"alice"@example.org',
        "'alice@example.org'",
        "alice@example.org;",
        "ali;ce@example.org",
        "mailto:alice@example.org",
        "alice(work)@example.org",
        "alice@[127.0.0.1]",
        "al\\ice@example.org",
        ".alice@example.org",
        "alice.@example.org",
        "al..ice@example.org",
        "alice@example..org",
        "alice@example.org.",
        "alice@.example.org",
        "alice@-example.org",
        "alice@example-.org",
        "alice@" + "a" * 64 + ".org",
        "al\N{ZERO WIDTH SPACE}ice@example.org",
        "alice@exa\N{ZERO WIDTH SPACE}mple.org",
        "al\N{SOFT HYPHEN}ice@example.org",
        "al\N{LEFT-TO-RIGHT OVERRIDE}ice@example.org",
        "al\N{GREEK QUESTION MARK}ice@example.org",
        "alice@" + "ä" * 64 + ".org",
    ],
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        canonical(text)


def test_an_address_is_at_most_254_bytes_long() -> None:
    longest = "a" * (MAX_LENGTH - len("@example.org")) + "@example.org"

    assert canonical(longest) == longest
    with pytest.raises(InvalidAddressError, match="at most 254"):
        canonical("a" + longest)
    with pytest.raises(InvalidAddressError, match="at most 254"):
        canonical("ä" * 130 + "@example.org")


def test_a_spelling_fits_where_its_address_fits() -> None:
    # 127 letters when composed, 255 as typed: the column that keeps the spelling would overflow
    with pytest.raises(InvalidAddressError, match="at most 254"):
        canonical("o\N{COMBINING DIAERESIS}" * 122 + "@example.org")


def test_an_error_shows_the_text_cut_and_harmless() -> None:
    with pytest.raises(InvalidAddressError) as raised:
        canonical("al\x1bice\ud800" + "x" * 10_000)

    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200
    assert printable("a\nb\x00c") == "a\ufffdb\ufffdc"
    assert printable("x" * 101) == "x" * 99 + "…"
    assert printable("x" * 100) == "x" * 100


@given(st.text() | look_alikes)
def test_nothing_is_raised_but_invalid_address(text: str) -> None:
    is_address(text)


@given(look_alikes.filter(is_address))
def test_a_canonical_address_is_its_own_canonical_form(text: str) -> None:
    once = canonical(text)

    assert canonical(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert len(once.encode()) <= MAX_LENGTH


@given(look_alikes.filter(is_address))
def test_case_and_composition_never_make_two_of_one(text: str) -> None:
    assert canonical(text.lower()) == canonical(text)
    assert canonical(unicodedata.normalize("NFD", text)) == canonical(text)


@given(
    st.from_regex(
        r"[A-Za-z0-9+_-]{1,20}(\.[a-z]{1,9})?@[A-Za-z0-9]([A-Za-z0-9-]{0,20}[a-z])?\.[A-Za-z]{2,5}", fullmatch=True
    )
)
def test_a_plain_address_is_matched_without_case(text: str) -> None:
    assert canonical(text.upper()) == canonical(text) == text.lower()

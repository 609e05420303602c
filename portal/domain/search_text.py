"""The search of names, regardless of case, accents and the order of words, in every script."""

import unicodedata


def search_key(*texts: str, limit: int = 400) -> str:
    """Return the form in which names are stored for the search: NFKD without combining marks, casefolded."""
    joined = " ".join(filter(None, texts))
    if joined.isascii():
        return joined.lower()[:limit]
    letters = unicodedata.normalize("NFKD", joined)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFKD", plain.casefold())[:limit]


def search_words(text: str) -> list[str]:
    """Return the words of a search as they were typed."""
    return text.split()


def matches(text: str, *texts: str) -> bool:
    """Return True if some text contains each word of a search."""
    among = search_key(*texts, limit=10_000)
    return all(search_key(word) in among for word in search_words(text))

"""The least that a Flask application can answer: what the page of a member is compared with."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """Answer."""
    return "Hello, World!"

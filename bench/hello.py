"""The smallest possible Flask application, to compare with a member's page."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """Return a greeting."""
    return "Hello, World!"

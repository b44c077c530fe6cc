# app.py
import os
import time

import jwt
from flask import Flask, request, session

import callboard
from callboard.errors import RunRefused, ServiceUnavailable

app = Flask(__name__)
app.secret_key = os.environ["FLASK_SECRET_KEY"]


@app.post("/login")
def login() -> dict[str, bool]:
    session["user"] = request.form["user"]  # your own check of who this is comes first
    return {"success": True}


@app.get("/token")
def token() -> dict[str, str]:
    """What the browser sends to Callboard's API."""
    return {"token": token_of(session["user"])}


@app.post("/orders")
def place_order() -> tuple[dict[str, str], int]:
    """Start a run and wait for nothing."""
    run_id = callboard.enqueue("placeOrder", request.get_json(), caller=session["user"])
    return {"runId": run_id}, 202


@app.get("/orders/<run_id>")
def order(run_id: str) -> dict[str, object]:
    """The run, once it has ended, as its caller may see it."""
    with callboard.Client(os.environ["CALLBOARD_URL"], token_of(session["user"])) as client:
        return client.run(run_id, wait=10)


def token_of(user: str) -> str:
    claims = {"sub": user, "exp": int(time.time()) + 300}
    return jwt.encode(claims, os.environ["JWT_SECRET"], "HS256")


@app.errorhandler(RunRefused)
def refused(error: RunRefused) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 422


@app.errorhandler(ServiceUnavailable)
def unavailable(error: ServiceUnavailable) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 503

"""What `sayHello` does, on a real database: `call` comes with Callboard."""


def test_say_hello_greets_the_caller_and_keeps_the_greeting(call):
    result = call("sayHello", {"name": "Ada"}, as_user="alice")
    assert result.unwrap() == {"text": "Hello, Ada, from alice"}
    (kept,) = call.tools.query("greetings").unwrap()["records"]
    assert kept["data"] == {"to": "Ada"}

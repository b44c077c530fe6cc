"""MONGODB_URI: as hosted databases print it; only what runs cannot rely on is refused."""

from __future__ import annotations

import pytest

from callboard.connections import mongodb_uri


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb+srv://app:secret@c0.ab1cd.example.net/shop?retryWrites=true&w=majority&appName=C0",
        "mongodb://a:1,b:2,[::1]:3/shop?replicaSet=atlas-x1-shard-0&authSource=admin&tls=true",
        "mongodb://u:p%40%2F%3A%25@h/shop?authMechanism=SCRAM-SHA-256",
        "mongodb://u:p@h/shop?tls=true&tlsCAFile=/etc/ssl/CA.pem&tlsAllowInvalidHostnames=false",
        "mongodb://h/shop?replicaSet=RS0&readPreference=primary&directConnection=true",
        "mongodb://h/shop?authMechanism=MONGODB-X509&ssl=true&tlsCertificateKeyFile=/etc/Key.pem",
        "mongodb://h/shop?W=Majority&journal=True&READPREFERENCE=Primary&readConcernLevel=majority",
        "mongodb://u:p@h:10255/shop?ssl=true&retrywrites=false&maxIdleTimeMS=120000&appName=@u@",
        "mongodb://h/shop?compressors=zlib&zlibCompressionLevel=3&maxPoolSize=50&wtimeoutMS=2500",
        "mongodb://h/shop?serverSelectionTimeoutMS=5000&uuidRepresentation=standard&w=majority",
        "mongodb://h/shop?",
    ],
)
def test_what_hosted_databases_print_is_taken(uri):
    mongodb_uri.check(uri)


@pytest.mark.parametrize(
    "option",
    [
        *("w=1", "W=0", "w=2", "w=nearest-rack", "journal=false", "j=FALSE", "fsync=true"),
        *(
            "readPreference=secondary",
            "readpreference=secondaryPreferred",
            "readPreference=nearest",
        ),
        *("readPreferenceTags=dc:ny", "maxStalenessSeconds=120", "readConcernLevel=available"),
        *("tlsInsecure=true", "tlsAllowInvalidCertificates=true", "tlsAllowInvalidHostnames=true"),
    ],
)
def test_what_runs_cannot_rely_on_is_refused_by_value(option):
    with pytest.raises(ValueError, match=f"asks for {option}.*Callboard needs"):
        mongodb_uri.check(f"mongodb://h/shop?appName=A&{option}")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        (
            "mongodb://h/shop?tlsCaFilee=/hunter",
            "has tlsCaFilee, refused by PyMongo: Unknown option",
        ),
        ("mongodb://h/shop?maxPoolSize=many", "maxPoolSize"),
        ("mongodb://h/shop?authMechanism=PLAINTEXT", "authMechanism"),
        ("mongodb://h/shop?authMechanismProperties=AWS_SESSION_TOKEN-hunter", "Properties"),
        ("mongodb://h/shop?tls=true&ssl=false", "has tls, ssl, refused"),
        ("mongodb://h/shop?appName=a&appname=b", "appname twice"),
        ("mongodb://h/shop?hunter", "not name=value"),
        ("mongodb://h/?retryWrites=true", "must name the database, before any options"),
        ("mongodb://h", "must name the database"),
        ("mongodb://h/a.hunter", "must name the database"),
        ("mongodb://h,/shop", "must look like"),
        ("mongodb://h:port/shop", "must look like"),
        ("postgres://h/shop", "must look like mongodb"),
        ("mongodb+srv://u:<db_password>@c0.example.net/shop", "placeholder"),
        ("mongodb://u:hun@hunter@h/shop", "percent-encode"),
        ("mongodb://u:100%hunter@h/shop", "percent-encode"),
        ("mongodb://u:a/hunter@h/shop", "must"),
        ("mongodb://u:1/shop?hunter@h/shop", "not name=value"),
    ],
)
def test_what_cannot_be_read_is_refused_without_a_word_of_the_password(uri, told):
    with pytest.raises(ValueError, match=told) as refused:
        mongodb_uri.check(uri)
    assert "hunter" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "CA.pem"
    uri = f"mongodb://h/shop?tls=true&tlsCAFile={file}"
    assert (
        mongodb_uri.unreadable(uri) == f"tlsCAFile {file} cannot be read: No such file or directory"
    )
    file.touch()
    assert mongodb_uri.unreadable(uri) is None

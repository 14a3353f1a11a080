"""Read the keys that AWS's tools use: of a profile, or of two variables."""

import configparser
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider

from s3.errors import BucketError

DEFAULT_PROFILE = "default"


@dataclass(frozen=True)
class Keys:
    """A pair of keys.

    Attributes:
        source: where they are from, for people.
    """

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    source: str


def of_profile(profile: str) -> Keys:
    """Return the keys of a profile in ~/.aws/credentials.

    AWS_SHARED_CREDENTIALS_FILE names another file. No message quotes its text.

    Raises:
        BucketError: there are none, they are temporary, or others can use the file.
    """
    file = credentials_file()
    source = f"the profile {profile!r} in {file}"
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BucketError(f"others can use the key file {file}: chmod 600 {file}")
        found = AWSConfigProvider(str(file), profile).retrieve()
    except OSError as error:
        raise BucketError(f"{file} cannot be read: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError):
        # Their messages quote the file.
        raise BucketError(
            f"{source} cannot be read: correct the file, or write each key into a "
            "file of its own, for -a and -s"
        ) from None
    except ValueError:
        raise BucketError(
            f"{source} does not have both aws_access_key_id and aws_secret_access_key: "
            "name another one with --aws-profile. Keys that other programs make (SSO, "
            "roles) are temporary, and a launch lasts longer"
        ) from None
    return _permanent(found, source)


def of_environment() -> Keys | None:
    """Return the keys of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; None if not set.

    Without them, they are those of AWS_PROFILE, or of the default profile if
    ~/.aws/credentials is there.

    Raises:
        BucketError: as ``of_profile``; or one of the two is missing.
    """
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    access_key, secret_key = (os.environ.get(name, "") for name in names)
    source = " and ".join(names)
    if access_key and secret_key:
        token = os.environ.get("AWS_SESSION_TOKEN")
        return _permanent(Credentials(access_key, secret_key, token), source)
    if access_key or secret_key:
        raise BucketError(f"set both {source}, or give key files with -a and -s")
    profile = os.environ.get("AWS_PROFILE")
    if profile or credentials_file().exists():
        return of_profile(profile or DEFAULT_PROFILE)
    return None


def credentials_file() -> Path:
    """Return the file in which AWS's tools keep profiles."""
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return Path(named or "~/.aws/credentials").expanduser()


def _permanent(found: Credentials, source: str) -> Keys:
    if found.session_token:
        raise BucketError(
            f"the keys of {source} are temporary, because they have a session token. "
            "They would expire during the launch: use permanent keys, or files that a "
            "program renews, with -a, -s and --session-token"
        )
    return Keys(found.access_key, found.secret_key, source)

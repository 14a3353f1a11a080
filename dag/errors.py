"""What can go wrong on the access point; each message says what to do next."""


class PipelineError(Exception):
    """The base of all of them: a sentence for people, never a traceback."""


class NotAManifest(PipelineError):
    """An object has a manifest's name, but no rows can be read from it."""


class SchedulerError(PipelineError):
    """HTCondor refused something or does not answer."""


class LookFailed(PipelineError):
    """Some of what a poll had to do could not be done; the journal says what."""

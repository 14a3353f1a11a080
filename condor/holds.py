"""Say in plain words why HTCondor holds a job, and what to do about it.

https://htcondor.readthedocs.io/en/latest/classad-attributes/job-classad-attributes.html
lists the codes. The bindings have no names for them.
"""

import re
from dataclasses import dataclass

# A person held the job, or submitted it on hold.
BY_USER, SUBMITTED_ON_HOLD = 1, 15
_TRANSFER_OUTPUT, _TRANSFER_INPUT = 12, 13
# The node's submit description looks for the same words. An execution point may have
# written the reason.
_REFUSED = re.compile(r"error: 403")
_MISSING = re.compile(r"error: 404")
_DISK_FULL = re.compile(r"No space left|Failure writing output")
_ASK_ADMINISTRATOR = "Ask the administrators of the access point about it."
_NOTHING_TO_DO = "You need not do anything."
_CHECK_OPTIONS = "Correct the --submit-option, and launch again."
_CHECK_DISK = "See whether the disk of the run directory is full or fails."
_CHECK_IMAGE = "Check the image of --node-environment, and launch again."


@dataclass(frozen=True)
class Explanation:
    """The meaning of a hold, and the remedy.

    Attributes:
        meaning: what happened, as a sentence.
        remedy: what to do, as a sentence.
    """

    meaning: str
    remedy: str


_UNKNOWN = Explanation("HTCondor holds it.", "See what HTCondor said.")
_EXPLANATIONS = {
    BY_USER: Explanation("A person holds it.", "'release' lets its run continue."),
    3: Explanation("A condition of your --submit-option holds it.", _CHECK_OPTIONS),
    4: Explanation(
        "A token or credential is missing or damaged.",
        "If the access point gives each job a token, run 'condor_submit "
        "scitokens_workaround.sub' once by hand.",
    ),
    5: Explanation("A condition of its description has no value.", _CHECK_OPTIONS),
    6: Explanation(
        "The machine cannot start the node.",
        "If this happens on all machines, see --node-environment.",
    ),
    **dict.fromkeys(
        (7, 8, 9, 10), Explanation("HTCondor cannot open its log.", _CHECK_DISK)
    ),
    11: Explanation("The connection to the machine broke.", _NOTHING_TO_DO),
    14: Explanation(
        "HTCondor cannot enter the run directory.",
        "Put the run directory back, if it was moved or removed.",
    ),
    SUBMITTED_ON_HOLD: Explanation(
        "It was submitted on hold, as a --submit-option says.",
        "'condor_release' lets it continue.",
    ),
    18: Explanation("The transfer of its files did not begin.", _NOTHING_TO_DO),
    21: Explanation("A rule of the machine holds it.", _NOTHING_TO_DO),
    22: Explanation("HTCondor cannot write the log of its events.", _CHECK_DISK),
    26: Explanation("A rule of the access point holds it.", _ASK_ADMINISTRATOR),
    27: Explanation(
        "A rule of the access point has no value for it.", _ASK_ADMINISTRATOR
    ),
    32: Explanation(
        "Its images are larger than the access point allows.", _ASK_ADMINISTRATOR
    ),
    33: Explanation(
        "It returned more files than a node may.",
        "HTCondor gives the job up. 'logs' and the failed CSV say more.",
    ),
    34: Explanation(
        "It used more memory than it requested.",
        "You need not do anything: it requests more when it is released.",
    ),
    35: Explanation("The container image cannot be used.", _CHECK_IMAGE),
    45: Explanation("The machine cannot run containers.", _CHECK_IMAGE),
}
_TRANSFERS = {
    (_TRANSFER_INPUT, _REFUSED): Explanation(
        "The store refuses to give out its image.",
        "Check that the keys are valid and may read the input bucket.",
    ),
    (_TRANSFER_INPUT, _MISSING): Explanation(
        "Its image is no longer in the input bucket.",
        "Upload the image again, or let its row fail.",
    ),
    (_TRANSFER_INPUT, _DISK_FULL): Explanation(
        "The disk of the machine is full.",
        "You need not do anything: it goes to another machine.",
    ),
    (_TRANSFER_INPUT, None): Explanation(
        "Its image could not be transferred to the machine.",
        "If many jobs are held like this, see whether the store answers.",
    ),
    (_TRANSFER_OUTPUT, _REFUSED): Explanation(
        "The store refuses to take its COG or JPEG.",
        "Check that the keys are valid and may write to the output bucket.",
    ),
    (_TRANSFER_OUTPUT, _MISSING): Explanation(
        "The output bucket is not there.", "Create the output bucket again."
    ),
    (_TRANSFER_OUTPUT, _DISK_FULL): Explanation(
        "A disk is full.", "See whether the disk of the run directory is full."
    ),
    (_TRANSFER_OUTPUT, None): Explanation(
        "Its outputs could not be transferred from the machine.",
        "If many jobs are held like this, see whether the store answers.",
    ),
}


def explain(code: int, reason: str) -> Explanation:
    """Return what a hold means, and what to do about it.

    Args:
        code: the HoldReasonCode.
        reason: the HoldReason.

    >>> explain(13, "The requested URL returned error: 404").meaning
    'Its image is no longer in the input bucket.'
    """
    if code not in (_TRANSFER_INPUT, _TRANSFER_OUTPUT):
        return _EXPLANATIONS.get(code, _UNKNOWN)
    found = (
        words for words in (_REFUSED, _MISSING, _DISK_FULL) if words.search(reason)
    )
    return _TRANSFERS[code, next(found, None)]

"""The view of identity and its questions; each file holds one idea, its tables and their SQL."""

from services.identity.projections.profile_answers import (
    batch_get_profiles,
    get_profile,
    list_profiles,
)
from services.identity.projections.profiles import find_profile_id
from services.identity.projections.timeline import list_timeline
from services.identity.projections.view import ProfilesView

__all__ = [
    "ProfilesView",
    "batch_get_profiles",
    "find_profile_id",
    "get_profile",
    "list_profiles",
    "list_timeline",
]

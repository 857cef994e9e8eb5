"""The routers that team mode has besides."""

from app.web.account_page import router as mine
from app.web.admin import router as admin
from app.web.provider_login import router as provider
from app.web.signing import router as signing

accounts = (signing, provider, mine, admin)

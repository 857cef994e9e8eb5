"""What every table is registered with."""

from sqlalchemy import MetaData

metadata = MetaData()

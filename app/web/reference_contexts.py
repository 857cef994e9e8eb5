"""What /api/docs shows, typed."""

from pydantic import BaseModel


class ApiField(BaseModel):
    """A parameter or field of the API."""

    name: str
    type: str
    required: bool
    text: str


class ApiExample(BaseModel):
    """A request as it is typed into a shell."""

    text: str
    command: str


class ApiRefusal(BaseModel):
    """A status of refusals, with the codes they have."""

    status: int
    codes: str


class ApiOperation(BaseModel):
    """One method of one path."""

    method: str
    path: str
    anchor: str
    tag: str
    summary: str
    text: str
    parameters: list[ApiField]
    body: list[ApiField]
    body_text: str
    answer: list[ApiField]
    answer_type: str
    examples: list[ApiExample]
    refusals: list[ApiRefusal]


class ApiPart(BaseModel):
    """Operations of one kind."""

    name: str
    text: str
    operations: list[ApiOperation]


class ApiModel(BaseModel):
    """A shape of the API's answers."""

    name: str
    text: str
    fields: list[ApiField]


class ApiPage(BaseModel):
    """/api/docs."""

    version: str
    text: str
    parts: list[ApiPart]
    models: list[ApiModel]

# actions/forecasts.py
from pydantic import BaseModel

from callboard import ActionResult, AsyncActionContext, action, fail


class Town(BaseModel):
    name: str


@action
async def forecast(ctx: AsyncActionContext, params: Town) -> ActionResult:
    """Ask a slow service for a town's forecast and keep it; hundreds wait at once."""
    answer = await ctx.fetch("weather", f"/forecasts/{params.name}")
    if not answer.is_success:
        return fail(f"The service answered {answer.status_code}")
    return await ctx.tools.create("forecasts", answer.json(), params.name)

# curl "$FOB/api/call/$ID?tasks=3"
import asyncio


async def callme(tasks: int = 2):
    async def work(n):
        await asyncio.sleep(0.01)
        return n * n

    return await asyncio.gather(*(work(n) for n in range(tasks)))

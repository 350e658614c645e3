"""A tool of the caller's, with the official OpenAI SDK: the model calls it, this program answers.

python docs/examples/chat_tool.py [BASE_URL]
"""

import json
import sys

from openai import OpenAI

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "count_letters",
            "description": "Count the letters of a text.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        },
    }
]


def count_letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def main(base_url: str) -> None:
    messages = [{"role": "user", "content": "How many letters are in this?"}]
    with OpenAI(base_url=base_url, api_key="unused") as client:
        while True:
            answer = client.chat.completions.create(model="demo", messages=messages, tools=TOOLS)
            message = answer.choices[0].message
            if not message.tool_calls:
                print(message.content)
                return
            messages.append(message)
            for call in message.tool_calls:
                print(f"the model calls {call.function.name}({call.function.arguments})")
                result = count_letters(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9099/v1")

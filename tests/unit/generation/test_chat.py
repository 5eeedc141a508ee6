"""Conversations: equal to rendering them whole; tool calls that always parse and satisfy the declared schemas."""

import json

import jsonschema
import pytest

import outlines_core as oc
from processors import load_embedded, vocabulary_from
from processors.generation import ChatSampler, Greedy, RandomSampling, Sampler, ToolFormat
from processors.generation.tools import ToolCall, call_guide, read_calls, read_tool

TEMPLATE_WITH_TOOLS = (
    "{{ bos_token }}{% for tool in tools or [] %}tool: {{ tool | tojson }}\n{% endfor %}{% for m in messages %}"
    "{{ m.role }}: {{ m.content }}{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def parts():
    return load_embedded()


@pytest.fixture
def chat_of(parts):
    model, tokenizer = parts
    vocabulary = vocabulary_from(tokenizer)
    # without these, calls of a random model are mostly blanks and escapes
    babble = [i for token, ids in vocabulary.items() if token.isspace() or b"\\" in token for i in ids]

    def make(*, terse=False, **options):
        if terse:
            options["forbidden_tokens"] = babble
        return ChatSampler(model, tokenizer=tokenizer, **options)

    return make


def weather(city: str, days: int = 1) -> dict:
    """The weather."""
    return {"city": city, "days": days, "cold": True}


CLOCK = {
    "name": "clock",
    "description": "The time.",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"enum": ["utc", "cet"]}},
        "required": ["zone"],
        "additionalProperties": False,
    },
}


class TestTurns:
    @pytest.mark.parametrize("method", [Greedy(), RandomSampling()], ids=repr)
    def test_each_answer_is_that_to_the_whole_conversation(self, parts, chat_of, method):
        model, tokenizer = parts
        chat = chat_of(multi_turn=True, system="Be brief.")
        talk = [{"role": "system", "content": "Be brief."}]
        for k, said in enumerate(["Hello", "Who are you?", "é"]):
            talk.append({"role": "user", "content": said})
            expected = Sampler(model, tokenizer=tokenizer).sample(talk, sampling=method, rng=k, max_new_tokens=8)
            assert chat.chat(said, sampling=method, rng=k, max_new_tokens=8) == expected
            talk.append({"role": "assistant", "content": expected})
            assert chat.conversation == talk

    def test_what_is_known_is_not_computed_again(self, parts, chat_of):
        model, tokenizer = parts
        widths = []

        def note(module, args, kwargs):
            widths.append(kwargs["input_ids"].shape[1])

        chat = chat_of(multi_turn=True)
        chat.chat("Hello, this is quite a long beginning of a conversation", max_new_tokens=4)
        hook = model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            chat.chat("Yes?", max_new_tokens=1)
        finally:
            hook.remove()
        assert widths[0] < 4 + len(tokenizer.encode("\nuser: Yes?\nassistant: ")) + 4

    def test_single_turns_forget(self, chat_of):
        chat = chat_of()
        first = chat.chat("Hello", max_new_tokens=5)
        assert chat.chat("Hello", max_new_tokens=5) == first
        assert len(chat.turns) == 2
        chat.chat("Hello", max_new_tokens=5, multi_turn=True)
        assert len(chat.turns) == 4
        assert (
            chat_of(turns=chat.turns[:2], multi_turn=True).chat("Hello", max_new_tokens=5) == chat.turns[3]["content"]
        )

    def test_streams(self, chat_of):
        chat, other = chat_of(multi_turn=True), chat_of(multi_turn=True)
        for _ in range(2):
            pieces = chat.chat("Hello", max_new_tokens=6, stream=True)
            before = chat.turns
            text = "".join(pieces)
            assert text == other.chat("Hello", max_new_tokens=6)
            assert chat.turns == (*before, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": text})

    def test_nothing_is_remembered_of_what_failed(self, chat_of):
        chat = chat_of(multi_turn=True)
        chat.chat("Hello", max_new_tokens=4)
        turns = chat.turns
        with pytest.raises(ValueError, match="does not fit"):
            chat.chat("Hello " * 5000)
        assert chat.turns == turns

    def test_guides(self, chat_of, parts):
        guide = oc.compile_choice(["yes", "no"], Sampler(parts[0], tokenizer=parts[1]).vocabulary)
        assert chat_of().chat("Is it?", guide=guide) in ("yes", "no")


class TestTools:
    @pytest.mark.parametrize("shown", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_calls_obey_the_schemas(self, parts, chat_of, shown, seed, monkeypatch):
        if shown:
            monkeypatch.setattr(parts[1], "chat_template", TEMPLATE_WITH_TOOLS)
        made = []

        def handle(name, arguments):
            made.append((name, arguments))
            return {"time": 7}

        def weather(city: str, days: int = 1) -> str:
            made.append(("weather", {"city": city, "days": days}))
            return "cold"

        chat = chat_of(terse=True, tools=[weather, CLOCK], tool_handler=handle, multi_turn=True)
        assert ("clock" in str(chat.conversation)) != shown
        answer = chat.chat(
            "What time is it?",
            tool_choice="required",
            sampling=RandomSampling(),
            rng=seed,
            max_new_tokens=80,
        )
        assert made
        schemas = {"clock": CLOCK["parameters"], "weather": chat.tools[0].parameters}
        for name, arguments in made:
            jsonschema.validate(arguments, schemas[name])
        roles = [turn["role"] for turn in chat.turns]
        assert roles[:2] == ["user", "assistant"]
        assert roles[2 : 2 + len(made)] == ["tool"] * len(made)
        assert chat.turns[-1] == {"role": "assistant", "content": answer}
        if shown:
            called = [call["function"]["name"] for call in chat.turns[1]["tool_calls"]]
            assert called == [name for name, _ in made]

    def test_an_answer_is_free_until_the_opener(self, parts, chat_of):
        """The opener of this format is one letter, which the model is bound to write sooner or later."""
        made = []

        def handle(name, arguments):
            made.append((name, arguments))
            return "noon"

        form = ToolFormat(opener="e", closer="", gap="")
        chat = chat_of(
            terse=True, tools=[CLOCK], tool_handler=handle, tool_format=form, max_tool_rounds=2, multi_turn=True
        )
        with pytest.raises(RuntimeError, match="after 2 rounds"):
            chat.chat("Extract: Ana, 5, Rome", sampling=RandomSampling(), rng=0, max_new_tokens=200)
        assert made
        assert {(name, *arguments.values()) for name, arguments in made} <= {("clock", "utc"), ("clock", "cet")}
        assert chat.turns == ()
        with pytest.raises(ValueError, match="max_new_tokens is too small"):
            chat.chat("When? ", sampling=RandomSampling(), rng=0, max_new_tokens=1, tool_choice="required")
        assert isinstance(chat.chat("When? ", max_new_tokens=4, tool_choice="none"), str)

    def test_reading_calls(self, parts):
        vocabulary = Sampler(*parts[:1], tokenizer=parts[1]).vocabulary
        form = ToolFormat()
        text = 'Let me see.<tool_call>\n{"name": "a", "arguments": {"x": "}<"}}\n</tool_call>\n'
        text += '<tool_call>{"name": "b", "arguments": {}}</tool_call>'
        tokens = parts[1].encode(text, add_special_tokens=False)
        assert read_calls(tokens, form, vocabulary) == ("Let me see.", [ToolCall("a", {"x": "}<"}), ToolCall("b", {})])
        assert read_calls(tokens[:2], form, vocabulary)[1] == []
        whole = parts[1].encode(text[11:], add_special_tokens=False)
        assert read_calls(whole, form, vocabulary, begins=True)[1] == read_calls(tokens, form, vocabulary)[1]
        with pytest.raises(ValueError, match="cut inside of a tool call"):
            read_calls(tokens[:-12], form, vocabulary)
        with pytest.raises(ValueError, match="cut inside of a tool call"):
            read_calls(parts[1].encode("So: <tool_call>", add_special_tokens=False), form, vocabulary)

    def test_special_tokens_as_opener(self):
        letters = {bytes([b]): [b] for b in range(256)}
        vocabulary = oc.Vocabulary(256, letters, special_tokens={"[CALL]": 257, "[END]": 258})
        tool = read_tool(CLOCK, lambda name, arguments: name)
        form = ToolFormat("[CALL]", "[END]", arguments_key="parameters", gap="")
        guide = call_guide([tool], form, vocabulary, opened=False)
        call = [257, *json.dumps({"name": "clock", "parameters": {"zone": "utc"}}).encode(), 258]
        n, state = guide.accept_tokens(guide.initial_state, call + call)
        assert n == 2 * len(call)
        assert guide.is_accepting(state)
        assert guide.accept_tokens(guide.initial_state, [*b"[CALL]"])[0] == 0
        assert read_calls([*b"Hm. ", *call, *call], form, vocabulary) == (
            "Hm. ",
            [ToolCall("clock", {"zone": "utc"})] * 2,
        )

    def test_functions_become_tools(self):
        tool = read_tool(weather, None)
        assert (tool.name, tool.description) == ("weather", "The weather.")
        jsonschema.validate({"city": "Oslo"}, tool.parameters)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"city": 3}, tool.parameters)
        assert tool.run(city="Oslo", days=2) == {"city": "Oslo", "days": 2, "cold": True}
        assert tool.declaration()["function"]["parameters"] == tool.parameters

    def test_refused(self, chat_of, parts):
        with pytest.raises(ValueError, match="tool_handler"):
            chat_of(tools=[CLOCK])
        with pytest.raises(ValueError, match="needs a name"):
            chat_of(tools=[{"description": "x"}], tool_handler=print)
        with pytest.raises(ValueError, match="must be an object"):
            chat_of(tools=[{"name": "x", "parameters": {"type": "array"}}], tool_handler=print)
        with pytest.raises(ValueError, match="without tools"):
            chat_of().chat("x", tool_choice="required")
        with pytest.raises(ValueError, match="stream cannot be used while tools"):
            chat_of(tools=[weather]).chat("x", stream=True)
        with pytest.raises(TypeError, match="no chat template"):
            ChatSampler(parts[0], tokenizer=Sampler(parts[0], tokenizer=parts[1]).vocabulary)
        with pytest.raises(ValueError, match="a Sampler has its own"):
            ChatSampler(Sampler(parts[0], tokenizer=parts[1]), cache_length=5)

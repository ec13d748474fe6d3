#include "lib/engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"

namespace moelora {

namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &engines::name,
#include "engines.inc"
#undef MOELORA_ENTRY
};

[[noreturn]] void refuse_engine(std::string_view id) {
  std::vector<std::string_view> known;
  for (const Engine* engine : kAll) known.push_back(engine->id);
  throw unknown_word(at_option(Option::engine), "engine", id, known);
}

[[noreturn]] void refuse_version(std::string_view text, const Engine& engine,
                                 std::string_view version) {
  std::vector<std::string_view> known;
  for (const Release& release : engine.releases) known.push_back(release.version);
  throw Error(
      at_option(Option::engine, printable(text)),
      fmt::format("{} is neither a version nor a date (2026-05-19), nor main", in_quotes(version)),
      fmt::format("versions of {}: {}", engine.id, fmt::join(known, ", ")));
}

[[noreturn]] void refuse_option(std::string_view pair, const std::string& what, Hint hint = {}) {
  throw Error(at_option(Option::server_option, printable(pair)), what, std::move(hint));
}

int64_t count_of(std::string_view pair, std::string_view value) {
  const auto number = parse_index(value);
  if (!number || *number < 1)
    refuse_option(pair, fmt::format("expected a number of 1 or more, found {}", in_quotes(value)));
  return *number;
}

// The four that every engine has; false when `key` is none of them.
bool set_common(ServerOptions& options, std::string_view key, std::string_view pair,
                std::string_view value) {
  if (key == "tp-size" || key == "tensor-parallel-size")
    options.tp = count_of(pair, value);
  else if (key == "ep-size")
    options.ep = count_of(pair, value);
  else if (key == "max-lora-rank")
    options.max_lora_rank = count_of(pair, value);
  else if (key == "max-loras" || key == "max-loras-per-batch")
    options.max_loras = count_of(pair, value);
  else
    return false;
  return true;
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// Servers take "DeepGEMM-Mega" for "deepgemm_mega".
bool is_same_value(std::string_view a, std::string_view b) {
  const auto plain = [](char c) {
    return c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return plain(x) == plain(y); });
}

bool is_choice(const ServerOption& option, std::string_view value) {
  const auto words = words_of(option.choices);
  return words.empty() || std::any_of(words.begin(), words.end(), [&](std::string_view word) {
           return is_same_value(word, value);
         });
}

void check_value(const ServerOption& option, std::string_view pair, std::string_view value) {
  if (option.kind == ServerOption::Kind::on_off && value != "on" && value != "off")
    refuse_option(pair, fmt::format("{} is neither on nor off", in_quotes(value)));
  if (option.kind == ServerOption::Kind::number) count_of(pair, value);
  if (option.kind == ServerOption::Kind::text && value.empty()) refuse_option(pair, "has no value");
  if (option.closed && !is_choice(option, value))
    throw unknown_word(at_option(Option::server_option), option.key, value,
                       words_of(option.choices));
}

const ServerOption* find_option(std::string_view key, std::span<const EngineChoice> engines) {
  for (const EngineChoice& choice : engines)
    for (const ServerOption& option : choice.engine->options())
      if (option.key == key || (!option.alias.empty() && option.alias == key)) return &option;
  return nullptr;
}

[[noreturn]] void refuse_key(std::string_view key, std::span<const EngineChoice> engines) {
  std::vector<std::string_view> known{"tp-size", "ep-size", "max-lora-rank", "max-loras"};
  for (const EngineChoice& choice : engines)
    for (const ServerOption& option : choice.engine->options()) known.push_back(option.key);
  throw unknown_word(at_option(Option::server_option), "option", key, known,
                     fmt::format("options: {}", fmt::join(known, ", ")));
}

}  // namespace

std::optional<bool> ServerOptions::flag(std::string_view key) const {
  const auto at = values.find(key);
  if (at == values.end()) return std::nullopt;
  return at->second == "on";
}

std::optional<int64_t> ServerOptions::number(std::string_view key) const {
  const auto at = values.find(key);
  return at == values.end() ? std::nullopt : parse_index(at->second);
}

std::string ServerOptions::text(std::string_view key) const {
  const auto at = values.find(key);
  return at == values.end() ? "" : at->second;
}

std::vector<std::string> notes_of_unknown_values(const ServerOptions& options,
                                                 const Engine& engine) {
  std::vector<std::string> out;
  for (const ServerOption& option : engine.options())
    if (const auto given = options.values.find(option.key);
        given != options.values.end() && !is_choice(option, given->second))
      out.push_back(fmt::format(
          "{} is not a value of --{} that is known here: what {} makes of it is not judged "
          "(known: {})",
          in_quotes(given->second), option.key, engine.title,
          fmt::join(words_of(option.choices), ", ")));
  return out;
}

std::string flags_text(const ServerOptions& options,
                       std::initializer_list<std::string_view> without) {
  std::string out;
  for (const auto& [key, value] : options.values) {
    if (std::find(without.begin(), without.end(), key) != without.end()) continue;
    if (value == "on")
      out += fmt::format(" --{}", key);
    else if (value != "off")
      out += fmt::format(" --{} {}", key, value);
  }
  return out;
}

const Release& Engine::release(std::string_view version) const {
  for (const Release& release : releases)
    if (release.version == version) return release;
  throw Error(std::string(id), fmt::format("has no release {}", version));
}

std::span<const Engine* const> all_engines() { return kAll; }

const Engine* find_engine(std::string_view id) {
  for (const Engine* engine : kAll)
    if (engine->id == id) return engine;
  return nullptr;
}

std::string EngineChoice::label() const { return fmt::format("{}@{}", engine->id, version.text()); }

EngineChoice parse_engine(std::string_view text) {
  const size_t at = text.find('@');
  const Engine* engine = find_engine(text.substr(0, at));
  if (engine == nullptr) refuse_engine(text.substr(0, at));
  std::string_view version = at == std::string_view::npos ? "latest" : text.substr(at + 1);
  if (version == "latest" || version == "stable") version = engine->newest;
  const auto parsed = EngineVersion::parse(version);
  if (!parsed) refuse_version(text, *engine, version);
  return {engine, *parsed};
}

void set_server_option(ServerOptions& options, std::string_view pair,
                       std::span<const EngineChoice> engines) {
  const size_t equals = pair.find('=');
  if (equals == std::string_view::npos || equals == 0)
    refuse_option(pair, "is not KEY=VALUE",
                  {"for example ", Option::server_option, " virtual-experts=on"});
  const std::string_view key = pair.substr(0, equals), value = pair.substr(equals + 1);
  if (set_common(options, key, pair, value)) return;
  const ServerOption* option = find_option(key, engines);
  if (option == nullptr) refuse_key(key, engines);
  check_value(*option, pair, value);
  options.values[std::string(option->key)] = value;
}

}  // namespace moelora

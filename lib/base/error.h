#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

// What a caller may set and a message may name. A program that calls the library sets a field; a
// tool has a flag for it, which is not called the same in every tool: lora-validate has --engine,
// lora-convert --for.
enum class Option : uint8_t {
  alpha,
  b_order,
  base,
  device,
  drop,
  dtype,
  engine,
  explain,
  follow_links,
  force,
  format,
  from,
  ignore,
  layers,
  max,
  max_rank,
  max_shard_size,
  model_spec,
  names,
  numeric,
  out_b_order,
  out_roles,
  part,
  preset,
  project,
  roles,
  server_option,
  source,
  targets,
  to,
};

// What the caller calls an option: "--for". Empty for one that it does not have.
using Spelling = std::function<std::string(Option)>;

std::string_view option_name(Option option);  // "b-order"
std::string default_flag(Option option);      // "--b-order"

// What a message is about, as data. Every part may be absent.
struct Location {
  std::string file;              // a path as it was given
  int line = 0, column = 0;      // in `file`, from 1; 0 unknown
  std::string item;              // in `file`, or alone: a tensor, a record, a config key
  std::optional<Option> option;  // then `item` is its value

  // "FILE", "FILE:LINE:COLUMN", "FILE: ITEM", "ITEM", "--to VALUE".
  std::string text(const Spelling& spell = default_flag) const;
};

Location in_file(std::string file, std::string item = {});
Location at_option(Option option, std::string value = {});

// How to correct what went wrong, as an instruction in which options are symbols:
//   Hint{"name the base model with ", Option::base}
class Hint {
 public:
  struct Part {
    Part(const char* words) : text(words) {}
    Part(std::string words) : text(std::move(words)) {}
    Part(Option named) : option(named) {}

    std::string text;
    std::optional<Option> option;
  };

  Hint() = default;
  Hint(const char* text);
  Hint(std::string text);
  Hint(std::initializer_list<Part> parts);

  // Compiled once in the source file rather than in every file that uses it.
  Hint(const Hint&);
  Hint(Hint&&) noexcept;
  Hint& operator=(const Hint&);
  Hint& operator=(Hint&&) noexcept;
  ~Hint();

  friend Hint operator+(Hint first, Hint second);

  // "" where no correction is known, or where it names an option that the caller does not have.
  std::string text(const Spelling& spell = default_flag) const;

 private:
  std::vector<Part> parts_;
};

// The one exception of this project: something could not be read, expressed or written.
//   location  what the user can point at
//   what      what was found and what was expected, numbers included
//   hint      how to correct it; empty where that is not known
// run_tool prints `TOOL: error: LOCATION: WHAT` and, when there is one, `hint: HINT`.
class Error : public std::runtime_error {
 public:
  Error(Location location, std::string what, Hint hint = {});
  // `where` as it stands: a tensor's name, a path.
  Error(std::string where, std::string what, Hint hint = {});
  Error(const char* where, std::string what, Hint hint = {});
  Error(Option option, std::string what, Hint hint = {});

  // Compiled once in the source file rather than in every file that uses it.
  Error(const Error&);
  Error(Error&&) noexcept;
  Error& operator=(const Error&);
  Error& operator=(Error&&) noexcept;
  ~Error();

  const Location& location() const { return location_; }
  std::string where() const { return location_.text(); }
  const std::string& text() const { return text_; }
  std::string hint() const { return advice_.text(); }
  const Hint& advice() const { return advice_; }

  // "LOCATION: WHAT" with the caller's names of options; what() has the default ones.
  std::string message(const Spelling& spell = default_flag) const;

 private:
  Location location_;
  std::string text_;
  Hint advice_;
};

}  // namespace moelora

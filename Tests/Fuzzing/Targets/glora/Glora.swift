import ArgumentParser

/// Stands for the program's own command, which the linked Console.swift asks how errors are said.
struct Glora: ParsableCommand {}

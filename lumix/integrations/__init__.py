"""Drop-ins for other libraries. Each module needs its library and is imported by name, never by `import lumix`."""

"""FastCNF's adaptive solvers beside what their users run: nets and solvers of the clients' own."""
